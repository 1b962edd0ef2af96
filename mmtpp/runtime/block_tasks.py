"""Blocks of work: how sequences are grouped, and their computation in Ray tasks."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray

from mmtpp.runtime.machines import task_options
from mmtpp.runtime.progress import ProgressBar
from mmtpp.runtime.task_errors import own_errors

_Result = TypeVar("_Result")
_Sequence = TypeVar("_Sequence")


def group_sequences(
    sequences: Sequence[_Sequence], num_events: Iterable[int], *, events_per_block: int
) -> list[list[_Sequence]]:
    """Group whole sequences, in their order, into blocks of about the same number of events.

    Args:
        sequences: The sequences.
        num_events: Number of events of each sequence.
        events_per_block: Number of events of a block.
    """
    ends = itertools.accumulate(num_events)
    blocks: dict[int, list[_Sequence]] = {}
    for end, sequence in zip(ends, sequences, strict=True):
        blocks.setdefault(end // events_per_block, []).append(sequence)
    return list(blocks.values())


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

    Raises:
        MmtppError: ``function`` raised it.
    """
    task: Any = ray.remote(**task_options(machine_labels))(function)
    shared_ref: Any = ray.put(shared)
    results = [task.remote(shared_ref, block, *arguments) for block in blocks]
    progress = ProgressBar(title, total=len(results), unit="tasks")
    for reference in results:
        with own_errors():
            result: Any = ray.get(reference)
        yield result
        progress.advance(1)
    progress.close()
