"""A finished run returns its result before any machine is asked for."""

from pathlib import Path

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ClusterError, ConfigError
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import join, write_bytes
from mmtpp.train.launch import planned_training, training_jobs
from mmtpp.train.launch.run_folder import RESULT_FILE, claim_run, identify_run
from tests.helpers.stand_in import stand_in

FINGERPRINT = "f" * 64


def _config(folder: Path, **settings: object):
    run = {"storage_uri": str(folder / "runs"), "name": "a"}
    training = {"num_steps": 100, **settings}
    return config_from_tree({"store": {"uri": "store"}, "run": run, "training": training})


@pytest.fixture
def run_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Folder of a run that has made 100 steps; no machine is available."""

    def refuse(*_arguments: object, **_named: object) -> None:
        raise ClusterError("no machines")

    store = PreparedStore(
        uri="store",
        manifest=stand_in(Manifest, fingerprint=FINGERPRINT),
        vocabulary=stand_in(Vocabulary),
    )
    for name, value in {
        "pin_revision": lambda uri: uri,
        "check_locations": lambda *_, **__: None,
        "load_training_store": lambda *_: store,
        "build_sample_settings": lambda *_, **__: None,
        "plan_training_samples": lambda *_: None,
        "start_ray_for_training": refuse,
    }.items():
        monkeypatch.setattr(training_jobs, name, value)
    monkeypatch.setattr(planned_training, "check_training", lambda *_: None)
    config = _config(tmp_path)
    run = claim_run(config, "pretrain", store_fingerprint=FINGERPRINT)
    assert run == identify_run(config, "pretrain", store_fingerprint=FINGERPRINT)
    write_bytes(join(run.run_uri, RESULT_FILE), b'{"steps": 100}')
    return run.run_uri


def test_it_needs_no_machines(run_uri: str, tmp_path: Path):
    assert training_jobs.pretrain(_config(tmp_path)) == {"steps": 100}


def test_more_steps_need_machines(run_uri: str, tmp_path: Path):
    with pytest.raises(ClusterError, match="no machines"):
        training_jobs.pretrain(_config(tmp_path, num_steps=200))


def test_it_refuses_other_settings(run_uri: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="other settings") as caught:
        training_jobs.pretrain(_config(tmp_path, learning_rate=0.5, max_failures=7))
    assert "training.learning_rate" in caught.value.problem
    assert "max_failures" not in caught.value.problem  # may change at any time


def test_it_refuses_another_way_to_set_its_updates(run_uri: str, tmp_path: Path):
    message = r"sets the number of its updates in another way: training\.max_flops = 0\.0 -> 1000"
    with pytest.raises(ConfigError, match=message):
        training_jobs.pretrain(_config(tmp_path, max_flops=1e15))


def test_a_run_is_claimed_after_its_machines_have_joined(run_uri: str, tmp_path: Path):
    with pytest.raises(ClusterError, match="no machines"):
        training_jobs.pretrain(_config(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
