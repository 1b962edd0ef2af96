"""Jobs on an autoscaled cluster: machines are launched, lost, replaced and removed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mlflow.tracking import MlflowClient

from benchmarks.fake_cloud import ROOT, lose, machines_with, wait_until_gone
from benchmarks.watch import checkpoints_known
from mmtpp.config.flat_settings import flat_settings
from mmtpp.core.errors import ClusterError
from mmtpp.data.prepare import prepare
from mmtpp.storage.paths import list_files, write_bytes
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.train.launch import pretrain
from tests.cluster.conftest import NO_CAPACITY
from tests.helpers.curves import curve
from tests.helpers.job_settings import RUNS, SOURCE, STORE, make_config
from tests.helpers.published_events import NUM_EVENTS, NUM_SEQUENCES, publish_events, publish_many

pytestmark = pytest.mark.slow

ON_DATA = {"store.machine_labels": {"role": "data"}}
ON_L4 = {**ON_DATA, "training.machine_labels": {"gpu": "l4"}}
REMOVAL_S = 120.0  # machines are idle for IDLE_MINUTES, then drained and removed


SWEEP = """
[sweep]
name = "autoscaled"
metric = ["validation/loss_per_token"]
mode = ["min"]
max_concurrent = 2
[space]
"training.learning_rate" = [0.001, 0.003, 0.006]
"""


def _settings(config) -> list[tuple[str, object]]:
    plain = flat_settings(type(config)())
    now = flat_settings(config)
    return [(key, value) for key, value in now.items() if value != plain.get(key)]


def _trial_runs(cloud) -> list[str]:
    client = MlflowClient(cloud.mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'autoscaled-%'")
    return [run.info.run_name for run in runs]


class MachineWatch(threading.Thread):
    """Records the running machines of each role while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, set[str]] = {"data": set(), "train": set()}
        self.peak = {"data": 0, "train": 0}
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.5):
            for role, seen in self.seen.items():
                now = machines_with(role=role)
                self.peak[role] = max(self.peak[role], len(now))
                seen.update(now)

    def __enter__(self) -> "MachineWatch":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()


@contextmanager
def machine_lost_when(cloud, condition, **labels: str) -> Iterator[list[str]]:
    """Kill one machine with these labels as soon as a condition holds."""
    lost: list[str] = []
    done = threading.Event()

    def wait() -> None:
        while not done.wait(0.1):
            machines = machines_with(**labels)
            if machines and condition():
                lose(cloud, machines[0])
                lost.append(machines[0])
                return

    watcher = threading.Thread(target=wait, daemon=True)
    watcher.start()
    try:
        yield lost
    finally:
        done.set()
        watcher.join()


@pytest.fixture(scope="module")
def store(cloud) -> dict:
    """A store that ``ray job submit`` prepares."""
    publish_events(SOURCE)
    wait_until_gone(REMOVAL_S)
    config = make_config(**ON_DATA)
    settings = {
        "source.uri": SOURCE,
        "store.uri": STORE,
        "store.machine_labels.role": "data",
        "split.validation_fraction": config.split.validation_fraction,
        "split.test_fraction": config.split.test_fraction,
        "model.tokenizer_size": config.model.tokenizer_size,
    }
    assignments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with MachineWatch() as watch:
        process = subprocess.run(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "job",
                "submit",
                "--working-dir",
                ".",
                "--",
                "python",
                "jobs/prepare.py",
                *assignments,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 0, process.stdout + process.stderr
    objects = [line for line in process.stdout.splitlines() if line.startswith("{")]
    report = json.loads(objects[-1])
    assert report["events_kept"] == NUM_SEQUENCES * NUM_EVENTS
    assert 1 <= watch.peak["data"] <= 2
    assert watch.peak["train"] == 0
    return report


@pytest.fixture(scope="module")
def undisturbed(store) -> dict:
    with MachineWatch() as watch:
        result = pretrain(make_config(**ON_L4, **{"run.name": "undisturbed"}))
    assert watch.peak["train"] == 2
    return result


def test_machines_are_launched_for_prepare_and_removed_when_idle(store):
    wait_until_gone(REMOVAL_S)
    repeated = prepare(make_config(**ON_DATA))  # needs a machine to check for changed files
    assert repeated["reused"]
    assert repeated["fingerprint"] == store["fingerprint"]


def test_machines_are_launched_for_training_and_removed(undisturbed):
    assert undisturbed["steps"] == 12
    wait_until_gone(REMOVAL_S)


def test_prepare_recovers_from_a_lost_machine_without_losing_events(cloud, monkeypatch):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 2)
    source, files = "s3://mmtpp/lost/raw", 800
    publish_many(source, files)
    changes = {**ON_DATA, "source.uri": source}
    folder = "s3://mmtpp/lost/store"
    write_bytes(f"{folder}/.exists", b"")

    def has_started() -> bool:
        return len(list_files(folder, "")) > 10

    with MachineWatch() as watch, machine_lost_when(cloud, has_started, role="data") as lost:
        report = prepare(make_config(**changes, **{"store.uri": folder}))
    assert len(lost) == 1
    assert watch.seen["data"] > set(lost)
    counts = [report[key] for key in ("events_kept", "sequences", "events_rejected")]
    assert counts == [2 * files, files, 0]
    whole = prepare(make_config(**changes, **{"store.uri": "s3://mmtpp/lost/whole"}))
    assert {**report, "store_uri": ""} == {**whole, "store_uri": ""}


def test_training_resumes_with_the_same_losses_after_a_lost_machine(cloud, undisturbed):
    name = "replaced"
    write_bytes(f"{RUNS}/{name}/.exists", b"")

    def has_checkpoint() -> bool:
        return checkpoints_known(f"{RUNS}/{name}") > 0

    with MachineWatch() as watch, machine_lost_when(cloud, has_checkpoint, gpu="l4") as lost:
        result = pretrain(make_config(**ON_L4, **{"run.name": name}))
    assert len(lost) == 1
    assert len(watch.seen["train"]) >= 3
    client = MlflowClient(cloud.mlflow_uri)
    assert curve(client, result["run_id"]) == curve(client, undisturbed["run_id"])


def test_a_sweep_gets_machines_for_its_trials_and_recovers_from_a_lost_one(cloud, store, tmp_path):
    wait_until_gone(REMOVAL_S)
    tree = make_config(**ON_L4, **{"training.num_workers": 1, "training.num_steps": 20})
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP)
    sweep = load_sweep(file, [f"{key}={json.dumps(value)}" for key, value in _settings(tree)])

    def is_training() -> bool:
        return any(checkpoints_known(f"{RUNS}/{name}") for name in _trial_runs(cloud))

    with MachineWatch() as watch, machine_lost_when(cloud, is_training, gpu="l4") as lost:
        result = run_sweep(sweep)
    assert len(lost) == 1
    assert 2 <= watch.peak["train"] <= 3
    assert (result["finished"], result["failed"], result["store_files_changed"]) == (3, 0, 0)
    wait_until_gone(REMOVAL_S)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training.machine_labels": {"gpu": "b200"}},
            r"2 workers with 1 CPU each on machines "
            r"with the labels {'gpu': 'b200'}: the cluster's autoscaler has no machines for them",
        ),
        (
            {"training.machine_labels": {"gpu": "l4"}, "training.num_workers": 4},
            r"(?s)4 workers .* autoscaler has no machines.*max_workers.*training.num_workers = 4",
        ),
        (
            {"training.machine_labels": {"gpu": "l4"}, "training.device": "gpu"},
            r"(?s)2 workers with 1 CPU and 1 GPU each.* autoscaler has no machines",
        ),
        (
            {"store.machine_labels": {"role": "dta"}},
            r"(?s)tasks that read the store .*'role': 'dta'.*"
            r"setting: store.machine_labels = {'role': 'dta'}",
        ),
    ],
)
def test_a_job_that_fits_no_machine_is_refused_at_once(store, changes, message):
    started = time.monotonic()
    with pytest.raises(ClusterError, match=message):
        pretrain(make_config(**{**ON_L4, "run.name": "refused", **changes}))
    assert time.monotonic() - started < 90


def test_a_job_waits_for_machines_that_the_cloud_lacks_and_names_them(store):
    changes = {"training.machine_labels": {"gpu": "h100"}, "training.num_workers": 1}
    with pytest.raises(ClusterError) as caught:
        pretrain(make_config(**{**ON_DATA, **changes, "run.wait_for_machines_s": 30.0}))
    message = str(caught.value)
    assert "1 workers with 1 CPU each on machines with the labels {'gpu': 'h100'}" in message
    assert "the machines did not join within" in message
    assert NO_CAPACITY in message
    assert "run.wait_for_machines_s = 30" in message
