"""What training hears from outside between its steps: machines leave, the job is to stop."""

import logging
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch

from mmtpp.train.engine import sum_over_ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """The same on all ranks.

    Attributes:
        loses_machines: a machine of some rank has been given notice; True once for each.
        is_to_stop: the job is to end after a checkpoint.
    """

    loses_machines: bool
    is_to_stop: bool


class Notices:
    """Asks after every step.

    Args:
        stop_request: what ``stopping.stops_on_sigterm`` made; None for a run that nobody stops so.
    """

    def __init__(self, stop_request: Any) -> None:
        self._answered: list[str] = []
        self._stop = None if stop_request is None else stop_request.wait.remote()

    def listen(self, device: torch.device) -> Heard:
        """A call for all ranks, which hear the same at the same step."""
        info = ray.train.get_preemption_info()
        nodes = info.preempted_node_ids if info else []
        is_new = any(node not in self._answered for node in nodes)
        self._answered += nodes
        if is_new:
            logger.warning("machines will be taken away: %s; saving a checkpoint", nodes)
        stops = self._stop is not None and bool(ray.wait([self._stop], timeout=0)[0])
        own = torch.tensor([float(is_new), float(stops)], device=device)
        loses_machines, is_to_stop = sum_over_ranks(own).tolist()
        return Heard(loses_machines > 0, is_to_stop > 0)
