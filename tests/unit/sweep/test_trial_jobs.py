"""The jobs of a trial, with functions that only record their configurations."""

import json
import math

import pytest

from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.sweep import trial
from mmtpp.sweep.trial import run_trial
from mmtpp.train.launch import TrainingJob
from tests.unit.sweep.sweeps import build_row

COST = "data/tokens_per_event"


@pytest.fixture
def reports(monkeypatch) -> list[dict]:
    """Reports to Ray Tune."""
    reports: list[dict] = []
    monkeypatch.setattr(trial.ray.tune, "report", reports.append)
    monkeypatch.setattr(trial.ray.tune, "get_checkpoint", lambda: None)
    return reports


@pytest.fixture
def configs(monkeypatch) -> list[tuple]:
    """Configurations of the jobs that ran."""
    configs: list[tuple] = []

    def run(job: TrainingJob):
        configs.append((job.name, job.config, job.start_uri))
        kind = "adapter" if job.config.lora.rank else "model"
        uri = f"s3://b/{job.config.run.name}/{kind}"
        return {f"{kind}_uri": uri, "steps": len(configs), "metrics": {COST: 2.0, "a/b": 1.0}}

    monkeypatch.setattr(trial, "run_training_job", run)
    monkeypatch.setattr(
        "mmtpp.evaluate.evaluate.evaluate", lambda config: run(TrainingJob("evaluate", config))
    )
    return configs


def _sweep(sweep_of, tmp_path, *assignments: str):
    return sweep_of(
        '[space]\n"training.learning_rate" = [0.01, 0.001]\n',
        f"sweep.metric={COST}",
        f"run.storage_uri={tmp_path}/runs",
        *assignments,
    )


@pytest.mark.parametrize(("rank", "kind"), [(0, "model"), (4, "adapter")])
def test_a_job_starts_from_the_model_of_the_job_before(
    sweep_of, tmp_path, reports, configs, rank, kind
):
    sweep = _sweep(
        sweep_of,
        tmp_path,
        'sweep.jobs=["pretrain", "finetune", "evaluate"]',
        'sweep.finetune={"training.num_steps" = 7}',
        f"lora.rank={rank}",
    )
    values = {"training.learning_rate": 0.01}
    run_trial(sweep, values, parent_run_id="p", trial_id="t_0")
    assert [name for name, _, _ in configs] == ["pretrain", "finetune", "evaluate"]
    first, second, third = (config for _, config, _ in configs)
    run = first.run.name
    assert run.startswith(f"{sweep.name}-")
    assert (second.run.name, third.run.name) == (f"{run}-finetune", f"{run}-evaluate")
    starts = [config.model.adapter if rank else config.model.path for config in (second, third)]
    assert starts == [f"s3://b/{run}/{kind}", f"s3://b/{run}-finetune/{kind}"]
    assert (second.training.num_steps, third.evaluation.split) == (7, "validation")
    assert first.training.num_steps != 7
    for config in (first, second, third):
        assert (config.training.learning_rate, config.tracking.parent_run_id) == (0.01, "p")
    metrics = {
        f"{prefix}{name}": value
        for prefix in ("", "finetune/", "evaluate/")
        for name, value in ((COST, 2.0), ("a/b", 1.0))
    }
    assert reports == [{**metrics, "step": 1.0, "run_name": run, "start_uri": "", "finished": 1.0}]
    stored = json.loads((tmp_path / "runs" / run / "trial.json").read_text())
    assert stored == {**metrics, "step": 1.0}

    # as if killed before Ray Tune recorded the end of the trial: no job runs again
    run_trial(sweep, values, parent_run_id="p", trial_id="t_0")
    assert reports[0] == reports[1]
    assert len(configs) == 3


def test_a_trial_of_a_later_round_continues_its_run(sweep_of, tmp_path, reports, configs):
    row = build_row(2, "cut short", run_name="r", start_uri="s3://b/checkpoint")
    run_trial(
        _sweep(sweep_of, tmp_path),
        {"training.learning_rate": 0.01},
        parent_run_id="p",
        trial_id="t_0",
        earlier_row=row,
    )
    ((_, config, start_uri),) = configs
    assert (config.run.name, start_uri) == ("r", "s3://b/checkpoint")
    assert (reports[0]["run_name"], reports[0]["start_uri"]) == ("r", "s3://b/checkpoint")


def test_an_error_is_reported_unless_another_attempt_may_avoid_it(
    sweep_of, tmp_path, reports, monkeypatch
):
    def fail_with(error: Exception) -> None:
        def run(_job: TrainingJob):
            raise error

        monkeypatch.setattr(trial, "run_training_job", run)
        values = {"training.learning_rate": 0.01}
        run_trial(_sweep(sweep_of, tmp_path), values, parent_run_id="p", trial_id="t_0")

    with pytest.raises(StorageError):
        fail_with(StorageError("no answer"))
    assert not reports
    fail_with(ConfigError("does not fit"))
    (report,) = reports
    assert math.isnan(report.pop(COST))
    assert report.pop("run_name")
    assert report == {
        "step": 0,
        "start_uri": "",
        "finished": 0.0,
        "error": "ConfigError: does not fit",
    }


def test_a_trial_without_the_metric_of_the_sweep_fails(sweep_of, tmp_path, reports, configs):
    sweep = _sweep(sweep_of, tmp_path, "sweep.metric=speed/tokens_per_s")
    run_trial(sweep, {"training.learning_rate": 0.01}, parent_run_id="p", trial_id="t_0")
    assert "trials do not report the metric of the sweep" in reports[0]["error"]
