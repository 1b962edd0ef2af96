"""Progress of long steps: a bar on a terminal, occasional log lines elsewhere."""

import atexit
import logging
import time

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 20.0


class ProgressBar:
    """Shows how much work is done, how fast, and how long the remaining work will take.

    On a terminal, once ``start_logging`` has found one, this is a bar. Elsewhere it is a log line
    at the start, one at the end, and at most one every ``SECONDS_BETWEEN_LINES``.

    Args:
        title: Name of the step.
        total: Units of work in the whole step; 0 shows nothing.
        unit: Name of the unit that is shown.
        scale: Units of work in one shown unit.
    """

    def __init__(self, title: str, *, total: int, unit: str, scale: int = 1) -> None:
        self._title, self._total, self._unit, self._scale = title, total, unit, scale
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if not total:
            return
        console = rich.get_console()
        if console.stderr and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=console,
                transient=True,  # the log line at the end stays
            )
            self._bar.add_task(title, total=total // scale, note="")
            self._bar.start()
            atexit.register(self._bar.stop)  # shows the cursor again, after an error too
        else:
            logger.info("%s: %d %s", title, total // scale, unit)

    def advance(self, count: int, note: str = "") -> None:
        """Record finished work.

        Args:
            count: Units of work.
            note: Text to show after the numbers.
        """
        self._done += count
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self._done // self._scale, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._done / (now - self._started)
            seconds_left = (self._total - self._done) / rate if rate else float("inf")
            logger.info(
                "%s: %d/%d %s, %.1f/s, %.0f s left%s",
                self._title,
                self._done // self._scale,
                self._total // self._scale,
                self._unit,
                rate / self._scale,
                seconds_left,
                f" ({note})" if note else "",
            )

    def close(self) -> None:
        """Log how long the step took; nothing when there was no work."""
        if self._bar is not None:
            self._bar.stop()
            atexit.unregister(self._bar.stop)
        seconds = time.monotonic() - self._started
        if self._total:
            done = self._done // self._scale
            logger.info("%s: %d %s in %.1f s", self._title, done, self._unit, seconds)


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s")
