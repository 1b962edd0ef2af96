"""The process group of a training: what Ray's own trainer does, without torch outside workers."""

import inspect
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import ray
from ray.train.torch import config as ray_config

from mmtpp.compat import torch_backend
from mmtpp.compat.torch_backend import TorchBackend, TorchGroupConfig

CONFIG = TorchGroupConfig(backend="gloo", timeout_s=7)


class _Workers:
    """A group of workers that records what it would run."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls: list[tuple[int | None, str, tuple, dict]] = []

    def __len__(self) -> int:
        return self.size

    def execute_single(self, rank: int, function: Any) -> Any:
        self.calls.append((rank, function.__name__, (), {}))
        return "10.0.0.1", 4711

    def execute_single_async(self, rank: int, function: Any, *arguments: object) -> str:
        self.calls.append((rank, function.__name__, arguments, {}))
        return "reference"

    def execute_async(self, function: Any, **arguments: object) -> list[str]:
        self.calls.append((None, function.__name__, (), arguments))
        return ["reference"] * self.size


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the controller waits for."""
    waited: list[Any] = []
    monkeypatch.setattr(ray, "get", lambda references, **_: waited.append(references))
    return waited


def test_every_rank_joins_at_the_address_of_the_first(waits: list[Any]):
    workers = _Workers(3)
    TorchBackend().on_start(workers, CONFIG)
    expected = [(rank, "_join", ("10.0.0.1", 4711, rank, 3, CONFIG), {}) for rank in range(3)]
    assert workers.calls == [(0, "get_address_and_port", (), {}), *expected]
    assert waits == [["reference"] * 3]


@pytest.mark.parametrize("size", [1, 2])
def test_every_rank_leaves(waits: list[Any], size: int):
    workers = _Workers(size)
    TorchBackend().on_shutdown(workers, CONFIG)
    assert workers.calls == [(None, "_leave", (), {"is_alone": size == 1})]
    assert waits == [["reference"] * size]


def test_a_worker_joins_as_rays_own_trainer_does(monkeypatch: pytest.MonkeyPatch):
    joined: list[Any] = []
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")
    monkeypatch.setattr(
        ray_config, "_set_torch_distributed_env_vars", lambda: joined.append(dict(os.environ))
    )
    monkeypatch.setattr(
        ray_config, "_setup_torch_process_group", lambda **given: joined.append(given)
    )
    torch_backend._join("10.0.0.1", 4711, 2, 3, CONFIG)
    environment, arguments = joined
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("10.0.0.1", "4711")
    assert arguments == {
        "backend": "gloo",
        "world_rank": 2,
        "world_size": 3,
        "init_method": "env://",
        "timeout_s": 7,
    }


def test_the_private_functions_of_ray_take_these_arguments():
    setup = inspect.signature(ray_config._setup_torch_process_group).parameters
    assert {"backend", "world_rank", "world_size", "init_method", "timeout_s"} <= setup.keys()
    assert not inspect.signature(ray_config._set_torch_distributed_env_vars).parameters
    assert "destroy_process_group" in inspect.signature(ray_config._shutdown_torch).parameters
    ours, theirs = CONFIG.backend_cls, ray_config.TorchConfig().backend_cls
    assert ours.share_cuda_visible_devices == theirs.share_cuda_visible_devices is True
    assert ours.has_replica_groups == theirs.has_replica_groups is False


def test_the_controller_does_not_import_torch():
    """The driver sends it the settings of the group, and the context of the workers' function."""
    sent = pickle.dumps((CONFIG, CONFIG.backend_cls(), CONFIG.train_func_context))
    code = f"import pickle, sys; pickle.loads({sent!r}); print('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "False"
