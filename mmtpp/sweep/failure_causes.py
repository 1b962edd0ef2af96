"""Why a trial failed, in one line: the root error behind the one that Ray reports."""

import re
from collections.abc import Sequence

from ray.exceptions import RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from mmtpp.core.errors import MmtppError

# the last line of a traceback: the error's class at the start of the line, then its message
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)(?:: .*)?$", re.MULTILINE)
_DEATH = "The actor is dead because "
_ATTEMPT = "Failure # "  # heading of an attempt in Ray Tune's text of a trial's errors
MAX_CHARACTERS = 300


def failure_cause(error: BaseException | str) -> str:
    """Describe in one line why a trial failed.

    The line is the message of the project's own error, the worker's error behind a failed run, or
    the cause of death of the process that drove the trial.

    Args:
        error: The error of a trial from Ray Tune or Ray Train; its text where it cannot be pickled.
    """
    if isinstance(error, str):
        lines = [line for line in error.splitlines() if line and not line.startswith(_ATTEMPT)]
        return _shorten((_RAISED.findall(error) or lines[:1] or ["unknown"])[-1])
    error = _root_error(error)
    if isinstance(error, MmtppError):
        where = f" ({error.where})" if error.where else ""
        return f"{type(error).__name__}: {error.problem}{where}"
    name, lines = type(error).__name__, str(error).splitlines() or [""]
    if isinstance(error, RayError):
        raised = _RAISED.findall(str(error))
        if raised:
            return _shorten(f"{raised[-1]} ({name})")
        deaths = [line for line in lines if line.startswith(_DEATH)]
        return _shorten(f"{name}: {(deaths or lines)[0]}")
    return _shorten(f"{name}: {lines[0]}")


def shared_cause(errors: Sequence[str]) -> str:
    """Describe the likely cause when all trials failed.

    Args:
        errors: Errors of all trials of the sweep, at least one.
    """
    num_different = len(set(errors))
    if num_different == 1 and len(errors) > 1:
        return "all trials have this error, so its cause is none of the searched settings"
    if num_different > 1:
        return f"{num_different} different errors; trials.csv lists them"
    return "a setting that the error names"


def _root_error(error: BaseException) -> BaseException:
    """The error that Ray's errors wrap."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return _root_error(min(error.worker_failures.items())[1])
    if isinstance(error, ControllerError):
        return _root_error(error.controller_failure)
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        return _root_error(error.cause)
    return error


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
