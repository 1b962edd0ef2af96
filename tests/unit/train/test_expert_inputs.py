"""What the driver of an expert's training sends to every worker."""

import logging
from typing import Any

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ConfigError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.storage.manifest import Manifest
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.launch import expert_job
from tests.helpers.stand_in import stand_in
from tests.helpers.tiny_models import tiny_vocabulary

RUN = RunIdentity("expert", "/runs/expert", "key")


def _inputs(
    monkeypatch: pytest.MonkeyPatch, *, manifest: dict[str, Any] | None = None, **expert: object
) -> ExpertInputs:
    values = {
        "fingerprint": "f" * 64,
        "data_folder": "data",
        "image_px": 56,
        "tick": 1.0,
        "seconds_per_unit": 60.0,
        "times_are_dates": False,
        "type_names": ["a", "b", "c"],
        "occurring_types": [0, 2],
        "sequences_by_split": {"train": 2, "validation": 1, "test": 1},
        "events_by_split": {"train": 9000, "validation": 10, "test": 10},
        "split_by": "hash",
    }
    store = PreparedStore(
        uri="/store",
        manifest=stand_in(Manifest, **(values | (manifest or {}))),
        vocabulary=tiny_vocabulary(),
    )
    monkeypatch.setattr(expert_job, "interval_range", lambda _: IntervalRange(1.0, 9.0, 1.0))
    config = config_from_tree(
        {
            "template": {"image_px": 56, "calendar": "minute"},
            "model": {"preset": "expert"},
            "expert": expert,
        }
    )
    return expert_job.build_inputs(config, store, RUN, reports_validation=False)


def test_types_with_names_are_all_known_and_the_calendar_of_the_template_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
):
    inputs = _inputs(monkeypatch)
    assert inputs.trained_tasks.type_codes == (0, 1, 2)
    assert inputs.output_uri == "/runs/expert/model"
    assert inputs.validation_sequence_settings is not None


def test_few_training_events_have_stronger_dropout_more_epochs_and_drawn_targets(
    monkeypatch: pytest.MonkeyPatch,
):
    few = {"events_by_split": {"train": 8191, "validation": 10, "test": 10}}
    for manifest, expected in (({}, (0.3, 0.0, 0.0, 30)), (few, (0.5, 0.2, 0.9, 90))):
        fit = _inputs(monkeypatch, manifest=manifest).fit_settings
        assert (fit.dropout, fit.memory_dropout, fit.hawkes_fraction, fit.epochs) == expected
    values = {"dropout": 0.1, "memory_dropout": 0.0, "hawkes_fraction": 0.0, "epochs": 7}
    fit = _inputs(monkeypatch, manifest=few, **values).fit_settings
    assert (fit.dropout, fit.memory_dropout, fit.hawkes_fraction, fit.epochs) == (0.1, 0, 0, 7)


def test_many_types_have_no_drawn_targets_and_no_validation_has_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch,
):
    few = {"events_by_split": {"train": 50, "validation": 0, "test": 10}}
    names = {"type_names": [f"type {number}" for number in range(33)]}
    assert _inputs(monkeypatch, manifest=few | names).fit_settings.hawkes_fraction == 0.0
    unvalidated = few | {"sequences_by_split": {"train": 2, "validation": 0, "test": 1}}
    assert _inputs(monkeypatch, manifest=unvalidated).fit_settings.epochs == 30


def test_types_without_names_are_those_that_occur(monkeypatch: pytest.MonkeyPatch):
    assert _inputs(monkeypatch, manifest={"type_names": []}).trained_tasks.type_codes == (0, 2)


def test_a_store_without_validation_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    splits = {"train": 2, "validation": 0, "test": 1}
    with caplog.at_level(logging.WARNING):
        inputs = _inputs(monkeypatch, manifest={"sequences_by_split": splits}, epochs=7)
    assert inputs.validation_sequence_settings is None
    assert "expert.epochs = 7 without early stopping" in caplog.text


def test_a_time_zone_needs_dates(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="time zone needs times that are dates") as error:
        _inputs(monkeypatch, time_zone="Europe/Berlin")
    assert "expert.time_zone = Europe/Berlin" in str(error.value)
    dated = _inputs(monkeypatch, manifest={"times_are_dates": True}, time_zone="Europe/Berlin")
    assert dated.time_zone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("texts", "has_lengths", "reads_words"),
    [("none", False, False), ("length", True, False), ("words", True, True)],
)
def test_texts_are_read_as_asked(
    monkeypatch: pytest.MonkeyPatch, texts: str, has_lengths: bool, reads_words: bool
):
    settings = _inputs(monkeypatch, texts=texts).train_sequence_settings.texts
    assert (settings.has_lengths, settings.num_words > 0) == (has_lengths, reads_words)


def test_the_size_of_the_images_is_that_of_the_store(monkeypatch: pytest.MonkeyPatch):
    """``template.image_px`` is of models that read the template; the run was refused."""
    inputs = _inputs(monkeypatch, manifest={"image_px": 112}, images="last")
    assert inputs.train_sequence_settings.sample_settings.store.image_px == 112
