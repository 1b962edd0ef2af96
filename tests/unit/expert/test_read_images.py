"""Images of a store and of files: which of them are read, and that all readers agree."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmtpp.api.past_reader import read_past
from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_images import NO_IMAGE
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.event_words import TextSettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.next_events import EventBlocks, NextEvents
from mmtpp.expert.read_sequences import (
    SequenceSettings,
    has_images,
    read_sequences,
    read_whole_sequences,
)
from mmtpp.expert.stored_past import PositionedEvents, StoredPast
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.small_experts import SETTINGS
from tests.helpers.steps import encode_shard

TOKENIZER = train_tokenizer(["some words"], size=300)
GREYS = (10, 20, None, 20, 30, 40)  # of the events' images


def _write(folder: Path, greys: tuple[int | None, ...]) -> None:
    """Publish one sequence with plain images."""
    (folder / "i").mkdir(parents=True)
    events = []
    for place, grey in enumerate(greys):
        event = {"time": float(place**2), "text": "", "TPP_attribute": {"event_type": place % 2}}
        if grey is not None:
            Image.new("RGB", (9, 9), (grey, grey, grey)).save(folder / f"i/{grey}.png")
            event["image_path"] = f"i/{grey}.png"
        events.append(event)
    (folder / "a.json").write_text(json.dumps(events))


def _settings(tmp_path: Path, greys: tuple[int | None, ...] = GREYS) -> SequenceSettings:
    _write(tmp_path / "raw", greys)
    out = tmp_path / "out"
    encode_shard(str(out), ["a.json"], tokenizer=TOKENIZER, source_uri=str(tmp_path / "raw"))
    samples = SampleSettings(
        store=StoreSettings(str(out), "x", 56, tick=1.0),
        compression=Compression("none"),
        template=TemplateSettings("dense", images="none", image_tokens=4, time_bytes=2),
        max_tokens=120,
        overlap_fraction=0.5,
        time_from=None,
        time_to=None,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=False,
        seed=0,
    )
    return SequenceSettings(samples, (0, 1), TextSettings(has_lengths=False), reads_images=True)


def _shown(past: PastEvents) -> list[int]:
    assert past.images is not None
    return past.images.values[:, 0, 0].tolist()


def _shown_before(past: PastEvents) -> list[int]:
    assert past.images is not None
    return past.images.values[:, 1, 0].tolist()


def test_events_have_their_images(tmp_path: Path):
    settings = _settings(tmp_path)
    [sequence] = read_sequences(settings)
    images = sequence.past.images
    assert images is not None
    assert _shown(sequence.past) == [10, 20, NO_IMAGE, 20, 30, 40]
    assert _shown_before(sequence.past) == [NO_IMAGE, 10, 20, NO_IMAGE, 20, 30]
    assert len(images.pixels) == 4  # equal images are kept once
    [(_, whole)] = read_whole_sequences(settings)
    assert _shown(whole) == [NO_IMAGE] * 4 + [30, 40]
    assert _shown_before(whole)[-1] == 30


def test_images_are_not_read_unasked(tmp_path: Path):
    settings = replace(_settings(tmp_path), reads_images=False)
    [sequence] = read_sequences(settings)
    [(_, whole)] = read_whole_sequences(settings)
    assert sequence.past.images is None
    assert whole.images is None


def test_images_before_the_first_scored_event_are_not_read(tmp_path: Path):
    settings = _settings(tmp_path)
    samples = replace(settings.sample_settings, time_from=10.0)
    [sequence] = read_sequences(replace(settings, sample_settings=samples))
    assert np.flatnonzero(sequence.is_target)[0] == 4
    # event 3 is the one before the first scored one, and is shown with the event before it
    assert _shown(sequence.past) == [NO_IMAGE] * 3 + [20, 30, 40]
    assert _shown_before(sequence.past)[3] == NO_IMAGE  # event 2 has no image
    samples = replace(settings.sample_settings, time_from=3.0)
    [sequence] = read_sequences(replace(settings, sample_settings=samples))
    assert _shown(sequence.past) == [10, 20, NO_IMAGE, 20, 30, 40]
    samples = replace(settings.sample_settings, time_from=20.0)
    [sequence] = read_sequences(replace(settings, sample_settings=samples))
    assert _shown(sequence.past) == [NO_IMAGE] * 3 + [20, 30, 40]


def test_a_store_without_images_has_none(tmp_path: Path):
    [sequence] = read_sequences(_settings(tmp_path, (None,) * 4))
    assert _shown(sequence.past) == [NO_IMAGE] * 4
    assert not has_images([sequence])


@pytest.fixture
def settings_and_expert(tmp_path: Path) -> tuple[SequenceSettings, Expert]:
    settings = _settings(tmp_path)
    sequences = read_sequences(settings)
    memory = MemorySettings.fit(
        PastEvents.join(sequence.past for sequence in sequences), tick=1.0, seconds_per_unit=1.0
    )
    blocks = EventBlocks.from_sequences(memory, sequences, tick=1.0)
    small = replace(SETTINGS, num_networks=1, epochs=3)
    fit = ExpertFit(blocks, None, num_types=2, settings=small, reads_images=True)
    while not fit.is_finished:
        fit.run_step()
        if fit.validation_is_due:
            fit.record_validation(fit.validate())
    return settings, Expert(memory, 1.0, tuple(fit.networks()), image_px=56)


def test_events_of_a_store_have_the_same_forecasts(
    settings_and_expert: tuple[SequenceSettings, Expert],
):
    settings, expert = settings_and_expert
    sequences = read_sequences(settings)
    events = NextEvents.from_sequences(expert.memory, sequences, tick=1.0)
    expected = ExpertForecasts.after(expert.networks, events.inputs)
    stored = StoredPast(expert, (0, 1), settings.sample_settings.store)
    [read] = stored._reader.sequences(["000000.parquet"])
    name = sequences[0].sequence_id
    for positions in ([1, 2, 4, 5], [3]):  # on, and back
        part = PositionedEvents(read.address, name, np.array(positions))
        forecasts = stored.forecasts([part])
        torch.testing.assert_close(forecasts.hidden[0], expected.hidden[0][np.array(positions) - 1])
    past = stored.past(PositionedEvents(read.address, name, np.array([4])))
    assert _shown(past) == [NO_IMAGE] * 3 + [20]
    assert _shown_before(past) == [NO_IMAGE] * 4
    past = stored.past(PositionedEvents(read.address, name, np.array([5])))
    assert _shown(past) == [NO_IMAGE] * 3 + [20, 30]
    assert _shown_before(past)[-1] == 20


@pytest.mark.parametrize(("last", "value"), [("i/30.png", 30), (None, NO_IMAGE)])
def test_the_api_reads_the_last_two_images(
    settings_and_expert: tuple[SequenceSettings, Expert],
    tmp_path: Path,
    last: str | None,
    value: int,
):
    _, expert = settings_and_expert
    raw = tmp_path / "raw"
    images = ("missing.png", str(raw / "i/10.png"), str(raw / last) if last else None)
    sequence = EventSequence("a", np.arange(3.0), np.zeros(3, np.int16), ("", "", ""), images)
    past = read_past(sequence, Vocabulary(TOKENIZER), expert, (0, 1))
    assert _shown(past) == [NO_IMAGE, 10, value]
    assert _shown_before(past)[-1] == 10
