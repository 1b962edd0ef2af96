"""Interruptions between the steps of a training: machines leave, or the job must stop."""

import logging
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayActorError

from mmtpp.train.ranks.rank_sums import sum_numbers_over_ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InterruptionState:
    """The interruptions since the last poll, the same on all ranks.

    Attributes:
        machine_leaves: Whether a machine of any rank will be taken away; True once per machine.
        stop_requested: Whether the job must end after a checkpoint.
    """

    machine_leaves: bool
    stop_requested: bool


class InterruptionPoll:
    """Polled after every step.

    Args:
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``; None for a run that
            cannot be stopped this way.
    """

    def __init__(self, stop_request: Any) -> None:
        self._known_nodes: set[str] = set()
        self._stop = None if stop_request is None else stop_request.wait.remote()

    def poll(self, device: torch.device) -> InterruptionState:
        """Read the interruptions; all ranks must call this, and get the same at the same step."""
        info = ray.train.get_preemption_info()
        nodes = info.preempted_node_ids if info else []
        is_new = any(node not in self._known_nodes for node in nodes)
        self._known_nodes.update(nodes)
        if is_new:
            logger.warning("machines will be taken away: %s; saving a checkpoint", nodes)
        flags = [float(is_new), float(self._is_stopped())]
        machine_leaves, stop_requested = sum_numbers_over_ranks(flags, device).tolist()
        return InterruptionState(machine_leaves > 0, stop_requested > 0)

    def _is_stopped(self) -> bool:
        if self._stop is None or not ray.wait([self._stop], timeout=0)[0]:
            return False
        try:
            ray.get(self._stop)
        except RayActorError as error:  # the actor is lost, which is not a request to stop
            logger.warning("`ray job stop` no longer reaches this worker: %s", error)
            self._stop = None
            return False
        return True
