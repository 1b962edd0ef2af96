"""``ray job stop``: the driver asks its workers to save a checkpoint and end.

The driver receives SIGTERM, and SIGKILL after ``RAY_JOB_STOP_WAIT_TIME_S`` seconds, a variable of
the cluster's head.
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
    """An actor on the driver's machine; workers hold one pending call to it instead of polling."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()

    async def request(self) -> None:
        self._requested.set()

    async def wait(self) -> None:
        await self._requested.wait()


@contextmanager
def stops_on_sigterm() -> Iterator[Any]:
    """While the driver waits for its workers, let the first SIGTERM ask them to save and end.

    Yields:
        Handle of the actor to give to the workers; None outside the main thread, which receives no
        signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    on_this_machine = NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor: Any = ray.remote(_StopRequest)
    stop_request = actor.options(
        num_cpus=0,
        max_concurrency=1000,
        # a new process in place of a dead one answers the pending calls
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=on_this_machine,
    ).remote()
    signalled = threading.Event()

    def forward_signal() -> None:  # not in the handler, which may interrupt Ray at any point
        signalled.wait()
        if is_waiting:
            ray.get(stop_request.request.remote())

    def on_sigterm(_number: int, _frame: object) -> None:
        logger.warning(
            "SIGTERM received: saving a checkpoint; a second SIGTERM ends the job at once"
        )
        signalled.set()
        signal.signal(signal.SIGTERM, previous_handler)

    is_waiting = True
    previous_handler = signal.signal(signal.SIGTERM, on_sigterm)
    forwarder = threading.Thread(target=forward_signal, daemon=True)
    forwarder.start()
    try:
        yield stop_request
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
        is_waiting = False
        signalled.set()
        forwarder.join()
        ray.kill(stop_request)
