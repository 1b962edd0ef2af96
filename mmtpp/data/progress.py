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
    """

    def __init__(self, what: str, *, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._started = self._last = time.monotonic()
        logger.info("%s: %d %s", what, total, unit)

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
                self._done,
                self._total,
                self._unit,
                rate,
                left,
                f" ({note})" if note else "",
            )

    def close(self) -> None:
        """Say how long it took."""
        seconds = time.monotonic() - self._started
        logger.info("%s: %d %s in %.1f s", self._what, self._done, self._unit, seconds)
