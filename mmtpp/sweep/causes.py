"""Why a trial failed, in one line: the first error behind what Ray reports."""

import re
from collections.abc import Sequence

from ray.exceptions import RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from mmtpp.core.errors import MmtppError
from mmtpp.sweep.trial_table import Row

# the last line of a traceback: the error's class at the beginning of the line, then its message
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)(?:: .*)?$", re.MULTILINE)
_DEATH = "The actor is dead because "
_HEADING = "Failure # "  # of each attempt in Ray Tune's text of the errors of a trial
MAX_CHARACTERS = 300


def one_line(error: BaseException | str) -> str:
    """The project's own words, the worker's error behind a failed run, or the cause of death of
    the process that drove the trial.

    Args:
        error: The error of a trial from Ray Tune or Ray Train; its text where it cannot be pickled.
    """
    if isinstance(error, str):
        lines = [each for each in error.splitlines() if each and not each.startswith(_HEADING)]
        return _short((_RAISED.findall(error) or lines[:1] or ["unknown"])[-1])
    error = _behind(error)
    if isinstance(error, MmtppError):
        where = f" ({error.where})" if error.where else ""
        return f"{type(error).__name__}: {error.problem}{where}"
    name, lines = type(error).__name__, str(error).splitlines() or [""]
    if isinstance(error, RayError):
        raised = _RAISED.findall(str(error))
        if raised:
            return _short(f"{raised[-1]} ({name})")
        deaths = [line for line in lines if line.startswith(_DEATH)]
        return _short(f"{name}: {(deaths or lines)[0]}")
    return _short(f"{name}: {lines[0]}")


def _behind(error: BaseException) -> BaseException:
    """The error that others were raised for."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return _behind(min(error.worker_failures.items())[1])
    if isinstance(error, ControllerError):
        return _behind(error.controller_failure)
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        return _behind(error.cause)
    return error


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def shared_cause(rows: Sequence[Row]) -> str:
    """The likely cause when all trials failed.

    Args:
        rows: All trials of the sweep, at least one.
    """
    errors = {str(row["error"]) for row in rows}
    if len(errors) == 1 and len(rows) > 1:
        return "all trials have this error, so its cause is none of the searched settings"
    if len(errors) > 1:
        return f"{len(errors)} different errors; trials.csv lists them"
    return "a setting that the error names"
