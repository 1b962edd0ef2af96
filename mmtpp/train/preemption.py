"""Machines that are about to be taken away: Ray tells, training saves a checkpoint in time."""

import logging

import ray.train
import torch

from mmtpp.train.engine import sum_over_ranks

logger = logging.getLogger(__name__)


class PreemptionNotice:
    """Asks Ray after every step, and all ranks hear of it at the same one."""

    def __init__(self) -> None:
        self._answered: list[str] = []

    def is_new(self, device: torch.device) -> bool:
        """Whether a machine of any rank has been given notice; True once for each. A call for all
        ranks."""
        info = ray.train.get_preemption_info()
        nodes = info.preempted_node_ids if info else []
        is_new = any(node not in self._answered for node in nodes)
        self._answered += nodes
        if is_new:
            logger.warning("machines will be taken away: %s; saving a checkpoint", nodes)
        return bool(sum_over_ranks(torch.tensor([float(is_new)], device=device)).item())
