"""The flow of a sweep around Ray Tune: MLflow runs, report and result."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import ClusterError
from mmtpp.sweep import run_sweep as flow
from mmtpp.sweep.stopped_runs import INTERRUPTED, STOPPED_EARLY
from mmtpp.sweep.trial_report import TrialReport
from mmtpp.track.mlflow_tracker import MlflowTracker
from tests.unit.sweep.sweeps import METRIC


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory) -> str:
    """A database of MLflow; it takes seconds to create one."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def sweep(sweep_of, tmp_path, monkeypatch, tracking_uri):
    """A sweep without a cluster and a store."""
    monkeypatch.setattr(flow, "TRACKER_WAIT_S", 60.0)
    monkeypatch.setattr(flow, "start_ray", lambda: None)
    monkeypatch.setattr(flow, "check_data", lambda *_, **__: None)
    monkeypatch.setattr(flow, "_store_files", lambda uri: {})
    monkeypatch.setattr(flow, "_wait_for_room", lambda sweep: 1)
    monkeypatch.setattr(flow, "trials_of_results", lambda results: results.trials)
    monkeypatch.setattr(flow, "load_or_build_tuner", lambda *_, **arguments: arguments)
    return sweep_of(
        '[space]\n"lora.rank" = [2, 4]\n',
        f"run.storage_uri={tmp_path}/runs",
        f"tracking.uri={tracking_uri}",
    )


class Results(list):
    """Results of Ray Tune, and their trials."""

    def __init__(self, budget, *reports: TrialReport) -> None:
        super().__init__(
            SimpleNamespace(metrics=report.as_metrics(), config={"lora.rank": rank}, error=None)
            for rank, report in zip((2, 4), reports, strict=True)
        )
        self.trials = [SimpleNamespace(trial_id=f"t_{rank}", config={}) for rank in (2, 4)]
        for trial in self.trials:
            budget.on_trial_start(0, [], trial)


def _finished(loss: float) -> TrialReport:
    return TrialReport({METRIC: loss}, step=9.0, run_name="r", start_uri="", is_last=True)


FAILED = TrialReport({}, step=0, run_name="r", start_uri="", is_last=True, error="E: x")
STOPPED = TrialReport({METRIC: 3.0}, step=4.0, run_name="r", start_uri="")


@pytest.mark.parametrize(
    ("outcome", "error", "status", "reason"),
    [
        ((_finished(2.0), STOPPED), None, "FINISHED", STOPPED_EARLY),
        ((FAILED, _finished(2.0)), None, "FINISHED", STOPPED_EARLY),
        ((FAILED, FAILED), ClusterError, "FAILED", STOPPED_EARLY),
        (KeyboardInterrupt(), KeyboardInterrupt, "KILLED", INTERRUPTED),
        (RuntimeError("Ray Tune broke"), RuntimeError, "FAILED", INTERRUPTED),
    ],
)
def test_the_runs_of_a_sweep_are_closed_by_its_outcome(
    sweep, tmp_path, monkeypatch, outcome, error, status, reason
):
    children: list[MlflowTracker] = []

    def fit(arguments: dict):
        child = MlflowTracker(
            sweep.config.tracking.uri,
            experiment=sweep.config.tracking.experiment,
            run_key=f"{tmp_path}/child",
            run_name="child",
            run_uri=f"{tmp_path}/child",
            parent_run_id=arguments["parent_run_id"],
        )
        child.wait_for_run(60.0)
        child.detach()  # its process has ended, its run is still open
        children.append(child)
        if isinstance(outcome, BaseException):
            raise outcome
        return Results(arguments["budget"], *outcome)

    monkeypatch.setattr(flow, "fit", fit)
    with pytest.raises(error) if error else nullcontext():
        result = flow.run_sweep(sweep)
        assert result["run_id"] == _run(sweep, children[0].run_id).data.tags["mlflow.parentRunId"]
    child_run = _run(sweep, children[0].run_id)
    assert child_run.info.status == "KILLED"
    assert child_run.data.tags["mmtpp.stopped"] == reason
    parent_run = _run(sweep, child_run.data.tags["mlflow.parentRunId"])
    assert parent_run.info.status == status
    assert parent_run.data.tags["mmtpp.job"] == "sweep"


def _run(sweep, run_id):
    return MlflowClient(sweep.config.tracking.uri).get_run(run_id)


def test_a_finished_sweep_prints_its_table_again(sweep, tmp_path, monkeypatch, capsys):
    calls: list[dict] = []

    def fit(arguments: dict) -> Results:
        calls.append(arguments)
        return Results(arguments["budget"], _finished(3.0), _finished(2.0))

    monkeypatch.setattr(flow, "fit", fit)
    result = flow.run_sweep(sweep)
    table = capsys.readouterr().out
    folder = tmp_path / "runs" / sweep.name
    assert (folder / "report" / "trials.md").read_text() + "\n" == table
    assert (result["best"], result["finished"]) == ({"lora.rank": 4}, 2)
    assert result["best_uri"] == str(folder / "report" / "best.toml")
    assert json.loads((folder / "result.json").read_text()) == result
    assert flow.run_sweep(sweep) == result
    assert capsys.readouterr().out == table
    assert len(calls) == 1
