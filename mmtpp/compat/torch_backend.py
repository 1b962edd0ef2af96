"""Ray Train's process group of torch, checked on Ray 2.60.0.

Ray's ``TorchTrainer`` does the same, but imports torch on the driver and in the controller, before
the workers start. Here only the workers import it.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray._common.utils import env_integer
from ray.exceptions import GetTimeoutError
from ray.train import BackendConfig
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend
from ray.train.constants import (
    DEFAULT_TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S,
    TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S,
)

logger = logging.getLogger(__name__)


class TorchBackend(Backend):
    """Joins and leaves the process group; runs in Ray Train's controller."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: "TorchGroupConfig") -> None:
        """Let all workers join a process group."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        num_ranks = len(worker_group)
        joining = [
            worker_group.execute_single_async(
                rank, _join, address, port, rank, num_ranks, backend_config
            )
            for rank in range(num_ranks)
        ]
        ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: "TorchGroupConfig") -> None:
        """Let all workers leave their process group."""
        del backend_config
        timeout_s = env_integer(
            TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S, DEFAULT_TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S
        )
        leaving = worker_group.execute_async(_leave, is_alone=len(worker_group) == 1)
        try:
            ray.get(leaving, timeout=timeout_s)
        except GetTimeoutError:
            logger.warning("the workers did not leave their process group in time")


@dataclass
class TorchGroupConfig(BackendConfig):
    """Settings of the process group.

    Attributes:
        backend: ``nccl`` or ``gloo``.
        timeout_s: Timeout of its collectives, in seconds.
    """

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type[TorchBackend]:
        """Class of the backend, for Ray."""
        return TorchBackend

    @property
    def train_func_context(self) -> Any:
        """Context of the function of a worker, for Ray."""
        return _on_own_device

    def to_dict(self) -> dict[str, Any]:
        """The settings, for Ray's record of the run."""
        return asdict(self)


def _join(address: str, port: int, rank: int, num_ranks: int, config: TorchGroupConfig) -> None:
    """Join the process group; runs in a worker.

    Uses ``_set_torch_distributed_env_vars`` and ``_setup_torch_process_group`` of
    ``ray.train.torch.config``. Checked on Ray 2.60.0.
    """
    from ray.train.torch import config as ray_config

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    ray_config._set_torch_distributed_env_vars()
    ray_config._setup_torch_process_group(
        backend=config.backend,
        world_rank=rank,
        world_size=num_ranks,
        init_method="env://",
        timeout_s=config.timeout_s,
    )


def _leave(*, is_alone: bool) -> None:
    """Leave the process group; runs in a worker.

    Uses ``ray.train.torch.config._shutdown_torch``. Checked on Ray 2.60.0.
    """
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=not is_alone)


@contextmanager
def _on_own_device() -> Iterator[None]:
    """Run a worker's function on its own GPU, if it has one.

    Uses ``ray.train.torch.config.TorchConfigContextManager``. Checked on Ray 2.60.0.
    """
    from ray.train.torch.config import TorchConfigContextManager

    with TorchConfigContextManager():
        yield
