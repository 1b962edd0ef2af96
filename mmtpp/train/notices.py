"""What training hears from outside between its steps: machines leave, the job is to stop.

``ray job stop`` sends SIGTERM to the job's driver and kills it ``RAY_JOB_STOP_WAIT_TIME_S`` of the
cluster's head later. In that time the workers finish their step and save a checkpoint.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
        stop_request: what ``stops_on_sigterm`` made; None for a run that nobody stops so.
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


class _StopRequest:
    """An actor beside the driver; workers wait for it without asking again and again."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    async def ask(self) -> None:
        self._asked.set()

    async def wait(self) -> None:
        await self._asked.wait()


@contextmanager
def stops_on_sigterm() -> Iterator[Any]:
    """While the driver waits for its workers, the first SIGTERM asks them to save and end.

    Yields:
        What the workers' ``Notices`` take; None outside the main thread, which gets no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(_StopRequest)
    request = actor.options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here).remote()
    asked = threading.Event()

    def ask() -> None:  # not in the handler, which may have interrupted Ray anywhere
        asked.wait()
        if is_waiting:
            ray.get(request.ask.remote())

    def on_sigterm(number: int, frame: object) -> None:
        logger.warning("asked to stop: saving a checkpoint; a second SIGTERM ends the job at once")
        asked.set()
        signal.signal(signal.SIGTERM, before)

    is_waiting = True
    before = signal.signal(signal.SIGTERM, on_sigterm)
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
        is_waiting = False
        asked.set()
        asking.join()
        ray.kill(request)
