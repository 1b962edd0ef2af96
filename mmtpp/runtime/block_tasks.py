"""Compute blocks of work in Ray tasks, with a progress bar."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray

from mmtpp.runtime.machines import task_options
from mmtpp.runtime.progress import ProgressBar

_Result = TypeVar("_Result")


def map_blocks(
    function: Callable[..., _Result],
    shared: object,
    blocks: Sequence[object],
    *arguments: object,
    machine_labels: Mapping[str, str],
    title: str,
) -> Iterator[_Result]:
    """Call a function for every block, each in a Ray task with one CPU.

    Args:
        function: Called with ``shared``, a block and ``arguments``.
        shared: First argument, sent to every machine once.
        blocks: Second argument of each call.
        arguments: Further arguments of every call.
        machine_labels: Ray labels of the machines that run the tasks.
        title: Title of the progress.

    Yields:
        Results in the order of the blocks.
    """
    task: Any = ray.remote(**task_options(machine_labels))(function)
    shared_ref: Any = ray.put(shared)
    results = [task.remote(shared_ref, block, *arguments) for block in blocks]
    progress = ProgressBar(title, total=len(results), unit="tasks")
    for result in results:
        yield ray.get(result)
        progress.advance(1)
    progress.close()
