"""Finds the rank that hangs: a thread in every rank compares the positions of all ranks.

A collective that times out does not say which rank is missing. The thread of every rank publishes
the rank's position and a sign of life. When its own rank has not moved for most of the timeout, it
reads the positions of all ranks. A rank that is silent or furthest behind is the one that hangs.
After the timeout the thread ends its process, because some collectives never time out: DeepSpeed's
own between the processors of one machine waits forever. Ray then starts the group again.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum

import ray
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

logger = logging.getLogger(__name__)

COMPARE_AFTER = 0.7  # multiple of the timeout after which the ranks are compared
# multiple of the timeout after which the process ends, if no collective has failed before
EXIT_AFTER = 1.2
STORE_TIMEOUT = timedelta(seconds=10)
NUM_FRAMES = 4  # frames of a rank's stack in the report


class Stage(IntEnum):
    """What a rank does between two updates, in the order in which it does it."""

    VALIDATING = 0
    SAVING = 1
    WAITING_FOR_DATA = 2
    COMPUTING = 3


class Watchdog(threading.Thread):
    """Publishes this rank's position, and reports once whenever the rank does not move for long.

    Args:
        rank: Rank of this process.
        num_ranks: Number of ranks in the group; torch.distributed must be initialised.
        timeout_s: Timeout of the group's collectives, in seconds.
        report: Receives the report, on every rank that can still make one.
    """

    def __init__(
        self, *, rank: int, num_ranks: int, timeout_s: float, report: Callable[[str], None]
    ) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._rank, self._num_ranks = rank, num_ranks
        self._timeout_s = timeout_s
        self._report = report
        self._trainer = threading.get_ident()
        self._interval_s = min(2.0, timeout_s / 20)
        self._position: tuple[int, int, int] = (0, 0, 0)  # step, stage, index; it only grows
        self._activity = "starting"
        self._moved_at = time.monotonic()
        self._beat = 0
        self._reported = False
        self._may_take_long = True
        self._stopped = threading.Event()
        self._store = _open_store(rank)
        self.start()

    def record_position(
        self,
        step: int,
        stage: Stage,
        activity: str,
        *,
        index: int = 0,
        may_take_long: bool = False,
    ) -> None:
        """Record that this rank has moved.

        Args:
            step: Number of updates made.
            stage: Stage before the next update.
            activity: What the rank does there, in words.
            index: Number of the row or micro-batch within the stage.
            may_take_long: Whether staying there is no sign of a hang.
        """
        self._may_take_long = may_take_long
        self._position, self._activity = (step, int(stage), index), activity
        self._moved_at = time.monotonic()
        self._reported = False

    def stop(self) -> None:
        """End the thread; training is over."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Publish and compare until ``stop``."""
        while not self._stopped.wait(self._interval_s):
            try:
                self._publish()
                if self._is_stuck(COMPARE_AFTER) and not self._reported:
                    self._reported = True
                    self._send_report(self._describe_positions())
            except dist.DistError:
                if self._is_stuck(COMPARE_AFTER) and not self._reported:
                    self._reported = True
                    self._send_report("rank 0 hangs: it does not answer")
            if self._is_stuck(EXIT_AFTER):
                logger.error(
                    "no progress for %.0f s: this process ends (training.hang_timeout_s = %g; "
                    "raise it if a micro-batch takes longer)",
                    self._stuck_s(),
                    self._timeout_s,
                )
                os._exit(1)  # the trainer's thread cannot be interrupted

    def _is_stuck(self, multiple: float) -> bool:
        return not self._may_take_long and self._stuck_s() > multiple * self._timeout_s

    def _stuck_s(self) -> float:
        return time.monotonic() - self._moved_at

    def _publish(self) -> None:
        self._beat += 1
        frame = sys._current_frames().get(self._trainer)
        frames = traceback.extract_stack(frame)[-NUM_FRAMES:] if frame else []
        state = {
            "beat": self._beat,
            "position": list(self._position),
            "doing": f"step {self._position[0]}, {self._activity}, for {self._stuck_s():.0f} s",
            "node": ray.util.get_node_ip_address(),
            "stack": [f"{line.filename}:{line.lineno} {line.name}" for line in frames],
        }
        self._store.set(f"rank-{self._rank}", json.dumps(state))

    def _read(self) -> list[dict]:
        return [json.loads(self._store.get(f"rank-{rank}")) for rank in range(self._num_ranks)]

    def _describe_positions(self) -> str:
        before = self._read()
        time.sleep(3 * self._interval_s)  # every live rank publishes again in this time
        self._publish()
        states = self._read()
        silent = [
            rank
            for rank, (old, new) in enumerate(zip(before, states, strict=True))
            if old["beat"] == new["beat"]
        ]
        last_position = min(state["position"] for state in states)
        behind = [rank for rank, state in enumerate(states) if state["position"] == last_position]
        if silent:
            verdict = f"{_name_ranks(silent)}: no sign of life"
        elif len(behind) < self._num_ranks:
            verdict = f"{_name_ranks(behind)}: behind the other ranks"
        else:
            verdict = "all ranks are at the same position; see which stack is not waiting"
        lines = [verdict]
        for rank, state in enumerate(states):
            lines.append(f"  rank {rank} on {state['node']}: {state['doing']}")
            lines += [f"    {line}" for line in state["stack"]]
        return "\n".join(lines)

    def _send_report(self, text: str) -> None:
        logger.error("no progress for %.0f s. %s", self._stuck_s(), text)
        self._report(text)


def _name_ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} hangs"
    return f"ranks {', '.join(map(str, ranks))} hang"


def _open_store(rank: int) -> TCPStore:
    """Open a store for positions only; torch's own store must work when this one hangs."""
    address: list[tuple[str, int] | None] = [None]
    server = None
    if rank == 0:
        server = TCPStore(
            ray.util.get_node_ip_address(),
            0,
            is_master=True,
            wait_for_workers=False,
            timeout=STORE_TIMEOUT,
        )
        address = [(server.host, server.port)]
    dist.broadcast_object_list(address)
    if server is not None:
        return server
    assert address[0] is not None
    host, port = address[0]
    return TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT)
