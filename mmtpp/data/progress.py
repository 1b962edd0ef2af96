"""Progress of long steps as log lines: done, rate and time left, at most one every few seconds."""

import logging
import time

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts work and logs a line now and then, readable in a terminal and in a job's log.

    Args:
        what: name of the step.
        total: units of work in all.
        unit: their name.
        scale: units of work in one ``unit``.
    """

    def __init__(self, what: str, *, total: int, unit: str, scale: int = 1) -> None:
        self._what, self._total, self._unit, self._scale = what, total, unit, scale
        self._done = 0
        self._started = self._last = time.monotonic()
        if total:
            logger.info("%s: %d %s", what, total // scale, unit)

    def advance(self, count: int, note: str = "") -> None:
        """Record finished work."""
        self._done += count
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else float("inf")
            logger.info(
                "%s: %d/%d %s, %.1f/s, %.0f s left%s",
                self._what,
                self._done // self._scale,
                self._total // self._scale,
                self._unit,
                rate / self._scale,
                left,
                f" ({note})" if note else "",
            )

    def close(self) -> None:
        """Say how long it took; nothing when there was nothing to do."""
        seconds = time.monotonic() - self._started
        if self._total:
            done = self._done // self._scale
            logger.info("%s: %d %s in %.1f s", self._what, done, self._unit, seconds)
