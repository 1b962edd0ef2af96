"""``ray job stop``: the driver asks its workers to save a checkpoint and end.

It gets SIGTERM, and SIGKILL ``RAY_JOB_STOP_WAIT_TIME_S`` of the cluster's head later.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)


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
