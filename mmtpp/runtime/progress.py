"""Progress of long steps: a bar on a terminal, and lines now and then elsewhere."""

import atexit
import logging
import time

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 20.0


class Progress:
    """Counts work and shows how much is done, how fast, and how long the rest will take.

    On a terminal, once ``cli.run_job.start_logging`` has found one, that is a bar; elsewhere a line
    of the log at the start, at the end, and at most one every ``SECONDS_BETWEEN_LINES``.

    Args:
        what: name of the step.
        total: units of work in all; 0 shows nothing.
        unit: their name.
        scale: units of work in one ``unit``.
    """

    def __init__(self, what: str, *, total: int, unit: str, scale: int = 1) -> None:
        self._what, self._total, self._unit, self._scale = what, total, unit, scale
        self._done = 0
        self._started = self._last = time.monotonic()
        self._bar: RichProgress | None = None
        if not total:
            return
        console = rich.get_console()
        if console.stderr and console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=console,
                transient=True,  # the line at the end stays
            )
            self._bar.add_task(what, total=total // scale, note="")
            self._bar.start()
            atexit.register(self._bar.stop)  # after an error, too: it hides the cursor
        else:
            logger.info("%s: %d %s", what, total // scale, unit)

    def advance(self, count: int, note: str = "") -> None:
        """Record finished work."""
        self._done += count
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self._done // self._scale, note=note)
            return
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
        if self._bar is not None:
            self._bar.stop()
            atexit.unregister(self._bar.stop)
        seconds = time.monotonic() - self._started
        if self._total:
            done = self._done // self._scale
            logger.info("%s: %d %s in %.1f s", self._what, done, self._unit, seconds)


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s")
