"""``evaluate`` and ``predict`` refuse a store that does not fit before they start Ray."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, MmtppError, ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.evaluate import evaluate as evaluate_job
from mmtpp.evaluate import evaluation_start
from mmtpp.model.folders.record import TrainedTasks, write_template
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE
from mmtpp.predict import predict as predict_job
from mmtpp.storage.manifest import SCHEMA_VERSION, Manifest
from tests.helpers.tiny_models import tiny_vocabulary

IMAGE_PX, SECONDS_PER_UNIT = 56, 60.0
JOBS = {
    "evaluate": (evaluate_job.evaluate, evaluation_start),
    "predict": (predict_job.predict, predict_job),
}


class _RayStartedError(Exception):
    """Raised instead of a start of Ray."""


@pytest.fixture(params=JOBS)
def run_job(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[RunConfig], object]:
    """A job that fails when it starts Ray."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise _RayStartedError

    job, module = JOBS[request.param]
    monkeypatch.setattr(module, "start_ray_for_data", refuse)
    return job


def _prepare(folder: Path, **values: object) -> RunConfig:
    """Write a store without events and a model; return the settings that name them.

    Args:
        folder: Folder of both.
        values: Values of the manifest that differ.
    """
    vocabulary = tiny_vocabulary()
    for name in ("model", "store/data"):
        (folder / name).mkdir(parents=True)
        (folder / name / TOKENIZER_FILE).write_text(vocabulary.tokenizer_json, encoding="utf-8")
    (folder / "model" / "config.json").write_text('{"model_type": "qwen2_5_vl"}', encoding="utf-8")
    config = config_from_tree(
        {
            "store": {"uri": str(folder / "store")},
            "run": {"storage_uri": str(folder / "runs")},
            "model": {"path": str(folder / "model")},
            "template": {"image_px": IMAGE_PX},
        }
    )
    trained_tasks = TrainedTasks(
        ("time", "type"),
        IntervalRange(1.0, 9.0, 1.0),
        (0, 1),
        ("a", "b"),
        SECONDS_PER_UNIT,
        trains_history=False,
    )
    write_template(config.sample_sections, folder / "model", trained_tasks)
    _manifest(
        {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": "f" * 64,
            "data_folder": "data",
            "vocabulary_hash": vocabulary.hash,
            "seconds_per_unit": SECONDS_PER_UNIT,
            "tick_s": 0.0,
            "image_px": IMAGE_PX,
            "type_names": ["a", "b"],
            "type_counts": [1, 1],
        }
        | values
    ).save(config.store.uri)
    return config


def _manifest(values: Mapping[str, object]) -> Manifest:
    whole: dict[str, Any] = {field.name: None for field in fields(Manifest)}
    return Manifest(**(whole | dict(values)))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"image_px": 28}, ConfigError, "template.image_px = 56, but the images"),
        ({"seconds_per_unit": 1.0}, ModelError, "times are in units of 1 s"),
        ({"type_names": ["b", "a"]}, ModelError, "the types are b, a"),
    ],
)
def test_a_store_that_does_not_fit_is_refused_before_ray_starts(
    run_job: Callable[[RunConfig], object],
    tmp_path: Path,
    values: Mapping[str, object],
    error: type[MmtppError],
    message: str,
):
    with pytest.raises(error, match=message):
        run_job(_prepare(tmp_path, **values))


def test_ray_starts_for_a_store_that_fits(run_job: Callable[[RunConfig], object], tmp_path: Path):
    with pytest.raises(_RayStartedError):
        run_job(_prepare(tmp_path))
