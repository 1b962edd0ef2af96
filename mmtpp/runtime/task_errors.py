"""Errors of Ray tasks."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayTaskError

from mmtpp.core.errors import MmtppError


@contextmanager
def own_errors() -> Iterator[None]:
    """Within it, an error of this project in a Ray task is raised as itself.

    Raises:
        MmtppError: A task raised it.
        RayTaskError: A task raised any other error.
    """
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, MmtppError):
            raise error.cause from error
        raise
