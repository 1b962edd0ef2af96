"""Which rank hangs, when all wait: a thread in every rank compares where the ranks are.

A collective that times out tells that somebody is missing, not who. Every rank's thread publishes
what its rank is doing and that it is alive; when its own rank has stood still for most of the
timeout, it looks at the others: one that is silent or furthest behind is the one that hangs.
After the timeout it ends its process, since not every collective does: DeepSpeed's own between the
processors of a machine waits forever. Ray then starts the group again.
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

import ray
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

logger = logging.getLogger(__name__)

PATIENCE = 0.7  # share of the timeout after which the ranks are compared
LAST_PATIENCE = 1.2  # and after which the process ends, if no collective has failed before
STORE_TIMEOUT = timedelta(seconds=10)
FRAMES = 4  # of a rank's stack in the report


class Watchdog(threading.Thread):
    """Publishes where this rank is, and reports once whenever it has stood still for long.

    Args:
        rank: of this process.
        num_ranks: in the group; torch.distributed is initialised.
        timeout_s: of the group's collectives.
        report: takes the report, on every rank that can still give one.
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
        self._place = (0, 0, "starting")
        self._moved_at = time.monotonic()
        self._beat = 0
        self._reported = False
        self._may_take_long = True
        self._stopped = threading.Event()
        self._store = _store(rank)
        self.start()

    def at(self, step: int, order: int, doing: str, *, may_take_long: bool = False) -> None:
        """This rank has come to a place.

        Args:
            step: updates made.
            order: of the place within a step.
            doing: in words.
            may_take_long: standing there is no sign of a hang.
        """
        self._may_take_long = may_take_long
        self._place, self._moved_at, self._reported = (step, order, doing), time.monotonic(), False

    def stop(self) -> None:
        """Training is over."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Until ``stop``."""
        while not self._stopped.wait(self._interval_s):
            try:
                self._publish()
                if self._has_stood(PATIENCE) and not self._reported:
                    self._reported = True
                    self._tell(self._compare())
            except dist.DistError:
                if self._has_stood(PATIENCE) and not self._reported:
                    self._reported = True
                    self._tell("rank 0 hangs: it does not answer")
            if self._has_stood(LAST_PATIENCE):
                logger.error(
                    "no progress for %.0f s: this process ends (training.hang_timeout_s = %g; a "
                    "micro-batch that takes longer needs more)",
                    self._stood_s(),
                    self._timeout_s,
                )
                os._exit(1)  # the trainer's thread cannot be interrupted

    def _has_stood(self, share: float) -> bool:
        return not self._may_take_long and self._stood_s() > share * self._timeout_s

    def _stood_s(self) -> float:
        return time.monotonic() - self._moved_at

    def _publish(self) -> None:
        self._beat += 1
        frame = sys._current_frames().get(self._trainer)
        stack = traceback.extract_stack(frame)[-FRAMES:] if frame else []
        step, order, doing = self._place
        state = {
            "beat": self._beat,
            "place": [step, order],
            "doing": f"step {step}, {doing}, for {self._stood_s():.0f} s",
            "node": ray.util.get_node_ip_address(),
            "stack": [f"{each.filename}:{each.lineno} {each.name}" for each in stack],
        }
        self._store.set(f"rank-{self._rank}", json.dumps(state))

    def _read(self) -> list[dict]:
        return [json.loads(self._store.get(f"rank-{rank}")) for rank in range(self._num_ranks)]

    def _compare(self) -> str:
        before = self._read()
        time.sleep(3 * self._interval_s)  # each has published by then, if it is alive
        self._publish()
        states = self._read()
        silent = [
            rank
            for rank, (old, new) in enumerate(zip(before, states, strict=True))
            if old["beat"] == new["beat"]
        ]
        behind = min(state["place"] for state in states)
        last = [rank for rank, state in enumerate(states) if state["place"] == behind]
        if silent:
            verdict = f"{_named(silent)}: no sign of life"
        elif len(last) < self._num_ranks:
            verdict = f"{_named(last)}: behind the others"
        else:
            verdict = "all ranks stand at the same place; their stacks tell which one does not wait"
        lines = [verdict]
        for rank, state in enumerate(states):
            lines.append(f"  rank {rank} on {state['node']}: {state['doing']}")
            lines += [f"    {each}" for each in state["stack"]]
        return "\n".join(lines)

    def _tell(self, text: str) -> None:
        logger.error("no progress for %.0f s. %s", self._stood_s(), text)
        self._report(text)


def _named(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} hangs"
    return f"ranks {', '.join(map(str, ranks))} hang"


def _store(rank: int) -> TCPStore:
    """A store of its own: one that hangs must not stop torch's."""
    place: list[tuple[str, int] | None] = [None]
    server = None
    if rank == 0:
        server = TCPStore(
            ray.util.get_node_ip_address(),
            0,
            is_master=True,
            wait_for_workers=False,
            timeout=STORE_TIMEOUT,
        )
        place = [(server.host, server.port)]
    dist.broadcast_object_list(place)
    if server is not None:
        return server
    assert place[0] is not None
    host, port = place[0]
    return TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT)
