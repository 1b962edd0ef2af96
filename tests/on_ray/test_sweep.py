"""Sweeps on a real cluster and MLflow server: searchers and schedulers."""

import json
import os
import subprocess
import sys

import pytest
import ray
from mlflow.tracking import MlflowClient

from mmtpp.config.load import load_config, with_values
from mmtpp.core.errors import ClusterError, ConfigError, DataError
from mmtpp.core.training.training_metrics import LANGUAGE_MODEL_VALIDATION
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.model.base_folder import build_tiny
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import (
    copy_folder,
    read_bytes,
    remove_folder,
)
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.rounds import check_data
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.train.launch.flops_budget import num_steps_within
from tests.helpers.job_settings import RUNS, STORE, make_config
from tests.helpers.paths import ROOT
from tests.helpers.published_events import publish_events
from tests.on_ray.sweep_runs import LOSS, RATES, children_of, wait_until_free

pytestmark = pytest.mark.timeout(1800)

INTERVAL_METRIC = "validation/interval_code_nll_nats_per_event"


def _artifacts(client: MlflowClient, run_id: str, folder: str = "") -> set[str]:
    return {artifact.path for artifact in client.list_artifacts(run_id, folder)}


@pytest.mark.slow
def test_a_grid_has_a_parent_with_a_child_for_each_trial(base, mlflow_client, sweep_file, tmp_path):
    """One of three trials fails: it is recorded and does not stop the other two.

    The source does not exist: trials only have the store, so they cannot prepare it again.
    """
    file = sweep_file(
        "grid",
        'max_concurrent = 2\n[space]\n"lora.rank" = [2, 4]\n"training.learning_rate" = [0.003]\n',
        **{
            "model.path": base["model_uri"],
            "training.num_steps": 3,
            "source.uri": f"{RUNS}/no-such-source",
        },
    )
    broken = file.read_text().replace("[0.003]", "[0.003, 1e30]").replace("[2, 4]", "[2]")
    result = run_sweep(load_sweep(file, []))
    assert (result["finished"], result["failed"], result["store_files_changed"]) == (2, 0, 0)
    children = children_of(mlflow_client, result["run_id"])
    assert [child.info.status for child in children] == ["FINISHED", "FINISHED"]
    names = _artifacts(mlflow_client, result["run_id"])
    assert {"trials.md", "trials.csv", "best.toml", "figures"} <= names
    assert "figures/by_lora_rank.png" in _artifacts(mlflow_client, result["run_id"], "figures")
    known = {name for name in result["trials"][0] if "validation/" in name}
    assert known == set(LANGUAGE_MODEL_VALIDATION)
    ranks = {row["lora.rank"]: row["model/trained_parameters"] for row in result["trials"]}
    assert ranks[4] > ranks[2]
    best = tmp_path / "best.toml"
    best.write_bytes(read_bytes(result["best_uri"]))
    assert load_config(best).lora.rank == result["best"]["lora.rank"]

    again = run_sweep(load_sweep(file, []))
    assert result["trials"] == again["trials"]
    assert len(children_of(mlflow_client, result["run_id"])) == 2

    broken_file = tmp_path / "broken.toml"
    broken_file.write_text(broken)
    failing = run_sweep(load_sweep(broken_file, []))
    assert (failing["finished"], failing["failed"]) == (1, 1)
    assert failing["best"]["training.learning_rate"] == 0.003
    assert "not finite" in str(failing["trials"][1]["error"])
    statuses = sorted(child.info.status for child in children_of(mlflow_client, failing["run_id"]))
    assert statuses == ["FAILED", "FINISHED"]
    retried = run_sweep(load_sweep(broken_file, []), retry_failed=True)
    assert (retried["finished"], retried["failed"], retried["round"]) == (1, 1, 1)
    assert len(children_of(mlflow_client, retried["run_id"])) == 2


@pytest.mark.slow
def test_trials_that_fall_behind_are_stopped_and_free_their_machines(
    store, mlflow_client, sweep_file
):
    cpus = ray.cluster_resources()["CPU"]
    file = sweep_file(
        "asha",
        'max_concurrent = 1\n[sweep.scheduler]\nkind = "asha"\nevery_steps = 2\n'
        f"reduction_factor = 2\n{RATES}[0.01, 1e-6, 1e-7]\n",
        **{"training.num_steps": 8},
    )
    result = run_sweep(load_sweep(file, []))
    assert (result["finished"], result["stopped"], result["failed"]) == (1, 2, 0)
    assert result["best"] == {"training.learning_rate": 0.01}
    assert [row["step"] for row in result["trials"]] == [8, 2, 2]
    children = children_of(mlflow_client, result["run_id"])
    assert sorted(child.info.status for child in children) == ["FINISHED", "KILLED", "KILLED"]
    # the first of the two was closed when it was stopped: only one trial runs at a time
    killed = [child.info for child in children if child.info.status == "KILLED"]
    first, second = sorted(killed, key=lambda info: info.start_time)
    assert first.end_time < second.start_time + 5000
    wait_until_free(cpus)


@pytest.mark.slow
def test_a_population_copies_the_weights_of_its_best_trials(store, mlflow_client, sweep_file):
    file = sweep_file(
        "pbt",
        'searcher = "random"\nnum_trials = 2\nmax_concurrent = 2\n[sweep.scheduler]\n'
        'kind = "pbt"\nevery_steps = 10\nquantile_fraction = 0.5\n'
        f"{RATES}[0.01, 1e-7]\n",
        **{"training.num_steps": 60},  # enough that both trials run at the same time
    )
    with pytest.raises(
        ClusterError, match=r"the cluster has room for \d of sweep\.num_trials = 99"
    ):
        run_sweep(load_sweep(file, ["sweep.num_trials=99", "sweep.max_concurrent=0"]))
    result = run_sweep(load_sweep(file, ["sweep.seed=3"]))
    assert result["finished"] == 2, result["trials"]
    assert [row["step"] for row in result["trials"]] == [60, 60]
    # more runs than trials: some trial continued from another trial's checkpoint
    children = children_of(mlflow_client, result["run_id"])
    assert len(children) > 2
    first = {child.data.tags["mlflow.runName"]: child.info.run_id for child in children}
    steps = [
        min(
            point.step for point in mlflow_client.get_metric_history(run_id, "train/loss_per_token")
        )
        for run_id in first.values()
    ]
    assert 1 in steps
    assert max(steps) > 10  # its first step is after that of the checkpoint


@pytest.mark.slow
def test_two_metrics_make_a_front(store, mlflow_client, sweep_file):
    """The last job reports the second metric; earlier reports have only the first."""
    answers = f"finetune/{INTERVAL_METRIC}"
    file = sweep_file(
        "front",
        'searcher = "optuna"\nnum_trials = 2\njobs = ["pretrain", "finetune"]\n[space]\n'
        '"compression.delta" = {low = 0.0, high = 1.0}\n'
        '"window.max_tokens" = {low = 128, high = 256, step = 64}\n',
        f'["{INTERVAL_METRIC}", "{answers}"]',
        '["min", "min"]',
        **{
            "training.num_steps": 2,
            "training.validate_every": 1,
            "evaluation.targets_delta": 1.0,
        },
    )
    sweep = load_sweep(file, [])
    result = run_sweep(sweep)
    assert (result["finished"], result["failed"]) == (2, 0), result["trials"]
    costs = [(row[INTERVAL_METRIC], row[answers]) for row in result["trials"]]
    ends = {costs.index(min(costs)), costs.index(min(costs, key=lambda cost: (cost[1], cost[0])))}
    settings = [{key: row[key] for key in sweep.space} for row in result["trials"]]
    assert all(settings[place] in result["pareto"] for place in ends)
    assert len({row["validation/events"] for row in result["trials"]}) == 1
    assert "figures/pareto.png" in _artifacts(mlflow_client, result["run_id"], "figures")


@pytest.mark.slow
def test_a_trial_may_train_both_stages_and_forecast(store, mlflow_client, sweep_file):
    file = sweep_file(
        "stages",
        'jobs = ["pretrain", "finetune", "evaluate"]\nfinetune = {"training.num_steps" = 2}\n'
        f"{RATES}[0.003]\n",
        '"evaluate/time/rmse_s"',
        **{"training.num_steps": 3},
    )
    result = run_sweep(load_sweep(file, []))
    (row,) = result["trials"]
    assert row["status"] == "finished"
    assert row["evaluate/time/rmse_s"] > 0
    assert f"finetune/{LOSS}" in row
    assert row["validation/nll_nats_per_event"] > row[INTERVAL_METRIC] > 0
    for name in row:  # every reported metric is a valid sweep.metric
        if "/" in name:
            load_sweep(file, [f"sweep.metric={name}"])
    children = children_of(mlflow_client, result["run_id"])
    assert len(children) == 3
    # as if killed before Ray Tune recorded the end of the trial: no job runs again
    folder = f"{RUNS}/{result['name']}"
    for name in ("tune-0", "report"):
        remove_folder(f"{folder}/{name}")
    filesystem, path = filesystem_of(f"{folder}/result.json")
    filesystem.delete_file(path)
    again = run_sweep(load_sweep(file, []))
    (again_row,) = again["trials"]
    same = {key: value for key, value in row.items() if key not in ("seconds", "trial")}
    assert same == {key: again_row[key] for key in same}
    ended = {child.info.run_id: child.info.end_time for child in children}
    assert {
        child.info.run_id: child.info.end_time
        for child in children_of(mlflow_client, result["run_id"])
    } == ended


def test_another_content_of_the_store_is_another_sweep(store, sweep_file, tmp_path):
    file = sweep_file(
        "data", '[space]\n"lora.rank" = [2]\n', **{"store.uri": f"{RUNS}/changing-store"}
    )
    copy_folder(STORE, f"{RUNS}/changing-store")
    sweep = load_sweep(file, [])
    uri, data = f"{RUNS}/changing-sweep", {"store_uri": sweep.config.store.uri, "sweep_name": "s"}
    check_data(uri, **data)
    check_data(uri, **data)
    raw = str(tmp_path / "raw")
    publish_events(raw, bad=True)
    remove_folder(f"{RUNS}/changing-store")
    prepare(
        make_config(
            **{"source.uri": raw, "store.uri": f"{RUNS}/changing-store", "split.test_fraction": 0.1}
        )
    )
    with pytest.raises(DataError, match="this sweep was started on other data"):
        check_data(uri, **data)


def test_a_sweep_runs_from_any_folder(store, sweep_file, tmp_path):
    """As with an installed mmtpp: only the script's path says where ``tune`` is."""
    file = sweep_file("elsewhere", f"{RATES}[0.003]\n", **{"training.num_steps": 2})
    installed, folder = tmp_path / "installed", tmp_path / "folder"
    installed.mkdir()
    folder.mkdir()
    (installed / "mmtpp").symlink_to(ROOT / "mmtpp")
    run = subprocess.run(
        [sys.executable, str(ROOT / "tune" / "sweep.py"), "--config", str(file)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["finished"], result["failed"]) == (1, 0)
    assert not [*folder.iterdir()]


def test_equal_compute_gives_larger_models_fewer_steps(store):
    spent: dict[int, float] = {}
    for width in (24, 192):
        config = make_config(**{"training.max_flops": 3e11, "model.tiny_width": width})
        manifest = load_manifest(config.store.uri)
        vocabulary = store_vocabulary(config.store.uri, manifest)
        settings = build_sample_settings(config.sample_sections, manifest, split="train")
        plan = make_plan(settings, vocabulary.token_ids())
        arguments = {
            "optimizer": config.optimizer,
            "model": config.model,
            "trains_vision": config.trains_vision,
            "blank_frame": config.shows_blank_frame,
        }
        too_little = with_values(config, {"training.max_flops": 3e4}).training
        steps = num_steps_within(settings, plan, vocabulary, training=config.training, **arguments)
        assert steps > 10
        with pytest.raises(ConfigError, match="allows no update"):
            num_steps_within(settings, plan, vocabulary, training=too_little, **arguments)
        # the published estimate: 6 operations per parameter and token
        model = build_tiny(vocabulary, seed=0, width=width)
        layers = sum(
            parameter.numel() for parameter in model.model.language_model.layers.parameters()
        )
        tokens = plan.windows["num_tokens"].to_numpy().sum() / plan.num_samples
        spent[width] = 6 * layers * tokens * config.training.samples_per_step * steps
    assert spent[192] == pytest.approx(3e11, rel=0.25)  # head and vision tower are small
    assert spent[24] < spent[192]
