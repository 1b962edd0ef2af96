"""Another template than the one of the training is an error or a warning."""

import logging
from dataclasses import fields
from pathlib import Path

import pytest

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.model.folders.record import (
    TrainedTasks,
    check_template,
    load_recorded_settings,
    load_trained_tasks,
    write_template,
)
from mmtpp.storage.manifest import Manifest

CONFIG = with_values(RunConfig(), {"template.style": "minimal", "template.time_bytes": 2})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write_template(CONFIG.sample_sections, tmp_path, None)
    return str(tmp_path)


def test_the_same_template_passes_silently(folder: str, caplog: pytest.LogCaptureFixture):
    other = with_values(CONFIG, {"compression.delta": 3.0, "window.max_tokens": 128})
    check_template(other.sample_sections, folder, to_train=False)
    assert caplog.messages == []


def test_a_folder_without_record_passes(tmp_path: Path):
    check_template(CONFIG.sample_sections, str(tmp_path), to_train=False)


@pytest.mark.parametrize(
    ("trained", "here", "fits"),
    [
        ("recent_full", "temporal", False),
        ("none", "recent_full", False),
        ("recent_full", "recent_full", True),
        ("temporal", "relative", True),
    ],
)
def test_older_events_and_similar_events_are_different_templates(
    tmp_path: Path, trained: str, here: str, fits: bool
):
    key = "compression.strategy"
    write_template(with_values(CONFIG, {key: trained}).sample_sections, tmp_path, None)
    other = with_values(CONFIG, {key: here}).sample_sections
    if fits:
        check_template(other, str(tmp_path), to_train=False)
        return
    with pytest.raises(ModelError, match=f"{key} = {trained}, here {here}"):
        check_template(other, str(tmp_path), to_train=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("template.style", "compact"),
        ("template.time_bytes", 4),
        ("compression.run_encoding", "run_length"),
        ("template.calendar", "hour"),
        ("template.types", "words"),
    ],
)
def test_another_template_is_refused_except_for_training(
    folder: str, caplog: pytest.LogCaptureFixture, key: str, value: object
):
    other = with_values(CONFIG, {key: value})
    with pytest.raises(ModelError, match=f"{key} = .*, here {value}"):
        check_template(other.sample_sections, folder, to_train=False)
    with caplog.at_level(logging.WARNING):
        check_template(other.sample_sections, folder, to_train=True)
    assert key in caplog.text


def test_the_time_zone_matters_only_with_a_calendar(folder: str, tmp_path: Path):
    zone = {"template.time_zone": "Europe/Berlin"}
    check_template(with_values(CONFIG, zone).sample_sections, folder, to_train=False)
    with_calendar = with_values(CONFIG, {"template.calendar": "minute"})
    write_template(with_calendar.sample_sections, tmp_path, None)
    recorded = load_recorded_settings(str(tmp_path))
    assert (recorded["template.calendar"], recorded["template.time_zone"]) == ("minute", "UTC")
    with pytest.raises(ModelError, match=r"template\.time_zone = UTC, here Europe/Berlin"):
        check_template(with_values(with_calendar, zone).sample_sections, folder, to_train=False)


@pytest.mark.parametrize(
    ("key", "default", "value"),
    [("template.calendar", "none", "hour"), ("template.types", "code", "words")],
)
def test_a_model_older_than_a_setting_has_its_default(
    tmp_path: Path, key: str, default: str, value: str
):
    (tmp_path / "template.json").write_text('{"template.style": "minimal"}')
    check_template(CONFIG.sample_sections, str(tmp_path), to_train=False)
    other = with_values(CONFIG, {key: value})
    with pytest.raises(ModelError, match=f"{key} = {default}, here {value}"):
        check_template(other.sample_sections, str(tmp_path), to_train=False)


def test_other_images_cause_a_warning(folder: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        check_template(
            with_values(CONFIG, {"template.images": "none"}).sample_sections, folder, to_train=False
        )
    assert "template.images = per_event, here none" in caplog.text


def test_the_trained_tasks_are_recorded(tmp_path: Path, folder: str):
    trained_tasks = TrainedTasks(
        ("time", "type"),
        IntervalRange(0.5, 90.0, 1e-6),
        (0, 4),
        ("a", "b"),
        60.0,
        trains_history=True,
    )
    other = tmp_path / "finetuned"
    other.mkdir()
    write_template(CONFIG.sample_sections, other, trained_tasks)
    assert load_trained_tasks(str(other)) == trained_tasks
    assert load_trained_tasks(folder) is None
    check_template(CONFIG.sample_sections, str(other), to_train=False)


def test_a_store_of_another_unit_or_other_types_is_refused():
    trained_tasks = TrainedTasks(
        ("time",), IntervalRange(1.0, 9.0, 1.0), (0, 1), ("a", "b"), 60.0, trains_history=False
    )
    trained_tasks.check(_manifest(60.0, ["a", "b"]), where="store")
    with pytest.raises(ModelError, match=r"units of 1 s, the model was trained with units of 60 s"):
        trained_tasks.check(_manifest(1.0, ["a", "b"]), where="store")
    with pytest.raises(
        ModelError, match=r"the types are b, a; in the model's training events .* a, b"
    ):
        trained_tasks.check(_manifest(60.0, ["b", "a"]), where="store")
    with pytest.raises(ModelError, match="the types are nameless"):
        trained_tasks.check(_manifest(60.0, []), where="store")


def _manifest(seconds_per_unit: float, type_names: list[str]) -> Manifest:
    whole = {field.name: None for field in fields(Manifest)}
    return Manifest(**(whole | {"seconds_per_unit": seconds_per_unit, "type_names": type_names}))  # pyright: ignore[reportArgumentType]
