"""A training waits for the machines that it can start with, whichever kind its model is."""

from types import SimpleNamespace
from typing import Any

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.runtime.hardware import Hardware
from mmtpp.runtime.machines import ResourceDemand
from mmtpp.train.launch import TrainingJob, expert_job, training_hardware

_TRAINING = {"num_workers": 4, "min_workers": 1}


class _AskedError(Exception):
    """Ends a job at its first request for workers."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of workers that were asked for; there is no Ray."""
    counts: list[int] = []

    def wait(demand: ResourceDemand, *, patience_s: float) -> None:
        if demand.name == "workers":
            counts.append(demand.count)
            raise _AskedError

    for module in (training_hardware, expert_job):
        monkeypatch.setattr(module, "wait_for_machines", wait, raising=False)
    return counts


def _config(**sections: object) -> RunConfig:
    return config_from_tree({"store": {"uri": "/none"}, "training": _TRAINING, **sections})


def test_a_language_model_waits_for_the_fewest_workers(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
):
    hardware = Hardware(on_gpu=False, precision="float32")
    monkeypatch.setattr(training_hardware, "start_ray", lambda: None)
    monkeypatch.setattr(training_hardware, "choose_hardware", lambda *_: hardware)
    config = _config()
    with pytest.raises(_AskedError):
        training_hardware.start_ray_for_training(
            config.training, config.zero, precision="float32", data_labels={}, patience_s=0.0
        )
    assert asked == [1]


def test_an_expert_waits_for_the_fewest_workers(asked: list[int], monkeypatch: pytest.MonkeyPatch):
    """It waited for training.num_workers, and failed on a cluster that had fewer machines."""
    store: Any = SimpleNamespace(manifest=SimpleNamespace(fingerprint="f"))
    stand_ins = {
        "load_store": lambda _: store,
        "find_finished": lambda *_, **__: None,
        "import_early": lambda: None,
        "start_ray_for_data": lambda *_, **__: None,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(expert_job, name, stand_in)
    with pytest.raises(_AskedError):
        expert_job.run_expert_job(TrainingJob("pretrain", _config(model={"preset": "expert"})))
    assert asked == [1]
