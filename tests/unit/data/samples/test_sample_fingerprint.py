"""The fingerprint of sample settings: which fields count, and the record that is hashed."""

import hashlib
from dataclasses import fields, replace

import pytest

from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.supervision import EveryEvent
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.data.samples.sample_settings import NewTargets, SampleSettings
from mmtpp.data.store.store_settings import StoreSettings
from tests.helpers.stand_in import stand_in

PLAIN = SampleSettings(
    store=StoreSettings("s3://b/data", "f", 56),
    compression=Compression("temporal", 2.5),
    template=TemplateSettings("paper", "none", 4),
    max_tokens=400,
    overlap_fraction=0.25,
    time_from=None,
    time_to=9.0,
    split="train",
    max_sequences=0,
    targets_delta=0.0,
    packed=True,
    seed=3,
)

# Written by hand. Runs that were started with these settings have the hash of this text.
RECORD = (
    '{"compression": {"delta": 2.5, "drop_fraction": 0.5, "min_text_similarity": 0.5, '
    '"seed": 0, "strategy": "temporal"}, '
    '"image_px": 56, "max_sequences": 0, "max_tokens": 400, "overlap_fraction": 0.25, '
    '"packed": true, "seed": 3, "split": "train", "store": "f", "targets_delta": 0.0, '
    '"template": {"image_tokens": 4, "images": "none", "run_encoding": "token", '
    '"style": "paper", "time_bytes": 4}, "time_from": -1e+300, "time_to": 9.0}'
)

# other values of the fields that samples depend on
COUNTED = {
    "store": StoreSettings("s3://b/data", "g", 56),
    "compression": Compression("temporal", 3.0),
    "template": TemplateSettings("compact", "none", 4),
    "max_tokens": 500,
    "overlap_fraction": 0.5,
    "time_from": 1.0,
    "time_to": None,
    "split": "test",
    "max_sequences": 7,
    "targets_delta": 1.0,
    "packed": False,
    "seed": 4,
    "supervision": EveryEvent(("time",)),
    "max_text_tokens": 8,
    "older_tokens": 100,
    "new_targets": NewTargets(5.0),
}
# the samples are the same: an error instead of a cut, and a memory that a plan does not depend on
NOT_COUNTED = {"long_events": "fail", "memory": stand_in(MemorySettings)}


def test_a_new_field_is_either_counted_or_not():
    assert {*COUNTED, *NOT_COUNTED} == {field.name for field in fields(SampleSettings)}


@pytest.mark.parametrize("name", COUNTED)
def test_fields_that_samples_depend_on_are_counted(name: str):
    assert replace(PLAIN, **{name: COUNTED[name]}).fingerprint != PLAIN.fingerprint


def test_the_replay_of_older_targets_is_counted():
    settings = [
        replace(PLAIN, new_targets=NewTargets(5.0, replay=replay)) for replay in (None, 0.0, 1.0)
    ]
    assert len({part.fingerprint for part in settings}) == 3


@pytest.mark.parametrize("name", NOT_COUNTED)
def test_other_fields_are_not_counted(name: str):
    assert replace(PLAIN, **{name: NOT_COUNTED[name]}).fingerprint == PLAIN.fingerprint


def test_the_location_of_the_store_is_not_counted():
    moved = StoreSettings("/copy", "f", 56, cache_bytes=1, machine_labels=(("a", "b"),), tick=1.0)
    assert replace(PLAIN, store=moved).fingerprint == PLAIN.fingerprint


def test_the_record_of_settings_without_later_fields_stays():
    assert PLAIN.fingerprint == hashlib.sha256(RECORD.encode()).hexdigest()
