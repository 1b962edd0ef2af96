"""Feed: the packed rows of one rank, in the order of the plan, assembled by Ray tasks.

The order is a pure function of (fingerprint, seed, step), so the whole resume state is the step.
Ray tasks assemble the share of a rank, one chunk each, one chunk ahead of training. The first chunk
is small and is assembled in this process, sooner than Ray's processes start. The tasks are
not Ray Data jobs, because the scheduling of these would run in the training process and, through
Python's global lock, slow its steps.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.style_layout import SOFT
from mmtpp.core.representation.tokens import TokenIds
from mmtpp.core.training.sample_order import samples_of_step, share_of_rank
from mmtpp.data.samples.assemble import Assembler, assemble_samples
from mmtpp.data.samples.plan import Plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.runtime.task_errors import own_errors

SAMPLES_PER_BLOCK = 16
FIRST_CHUNK = 32  # samples; small, so that training starts early
CHUNK = 256
CHUNK_BYTES = 256 * 2**20  # maximum size of a chunk of several samples; a rank has two chunks
TOKEN_BYTES = 26  # columns of tokens and branches of a packed row, per token
# of an event that is one token: 80 columns of memory, 32 text tokens, interval, type and code
CONTENT_BYTES = 512
# Assembling takes a moment every few minutes; asking for a CPU could deadlock a full cluster.
ASSEMBLING_CPUS = 0


def rank_samples(
    plan: Plan,
    *,
    seed: int,
    first_step: int,
    end_step: int,
    samples_per_step: int,
    rank: int,
    num_ranks: int,
) -> np.ndarray:
    """Samples that one rank consumes from ``first_step`` to before ``end_step``, in order.

    Args:
        plan: The plan.
        seed: Seed of the order of the samples.
        first_step: First step.
        end_step: Step after the last.
        samples_per_step: Number of samples in a step, over all ranks.
        rank: Rank of this process, 0 to ``num_ranks - 1``.
        num_ranks: Number of ranks.

    Returns:
        (N,) int64, the rank's shares of the steps one after the other.
    """
    shares = [
        share_of_rank(
            samples_of_step(
                step,
                num_samples=plan.num_visited,
                samples_per_step=samples_per_step,
                fingerprint=plan.fingerprint,
                seed=seed,
                replay=plan.replay,
            ),
            rank=rank,
            num_ranks=num_ranks,
        )
        for step in range(first_step, end_step)
    ]
    return np.concatenate(shares) if shares else np.zeros(0, dtype=np.int64)


def iter_rows(
    plan: Plan, sample_ids: np.ndarray, settings: SampleSettings, token_ids: TokenIds
) -> Iterator[PackedRow]:
    """Packed rows of these samples, in this order.

    Assembling of the first chunk starts before this returns. While one chunk is used, the next one
    is assembled. With ``store.machine_labels``, this machine may not read the store, so a task
    assembles the first chunk, too.
    """
    size = chunk_size(settings)
    starts = [0, *range(min(FIRST_CHUNK, size), len(sample_ids), size)]
    chunks = iter(np.split(sample_ids, starts[1:]))
    tasks = (_start_task(plan, chunk, settings, token_ids) for chunk in chunks if len(chunk))
    if settings.store.machine_labels:
        first = next(tasks, iter(()))
    else:
        first = _start_here(plan, next(chunks), settings, token_ids)
    return _rows(first, tasks, settings)


def _rows(
    assembled: Iterator[pa.Table] | None,
    later: Iterator[Iterator[pa.Table]],
    settings: SampleSettings,
) -> Iterator[PackedRow]:
    """Rows of one chunk after the other; each chunk starts when the one before is first read."""
    while assembled is not None:
        following = next(later, None)
        for table in assembled:
            for index in range(len(table)):
                yield row_from_arrow(table, index, image_px=settings.image_px)
        assembled = following


def chunk_size(settings: SampleSettings) -> int:
    """Number of samples in a chunk: up to ``CHUNK`` that fit ``CHUNK_BYTES`` if all tokens were of
    different images."""
    image_bytes = 3 * settings.image_px**2 if settings.shows_images else 0
    single_bytes = TOKEN_BYTES + CONTENT_BYTES + image_bytes
    if settings.template.style == SOFT:
        sample_bytes = settings.max_tokens * single_bytes
    else:
        full_bytes = TOKEN_BYTES + image_bytes / settings.template.image_tokens
        sample_bytes = settings.full_tokens * full_bytes + settings.older_tokens * single_bytes
    return max(1, min(CHUNK, int(CHUNK_BYTES / sample_bytes)))


def _split(plan: Plan, sample_ids: np.ndarray) -> list[pa.Table]:
    """Samples in blocks."""
    return [
        samples_table(plan, sample_ids[start : start + SAMPLES_PER_BLOCK])
        for start in range(0, len(sample_ids), SAMPLES_PER_BLOCK)
    ]


def _start_here(
    plan: Plan, sample_ids: np.ndarray, settings: SampleSettings, token_ids: TokenIds
) -> Iterator[pa.Table]:
    """Start to assemble a chunk in a thread of this process, and return its blocks in order."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
    parts = _split(plan, sample_ids)
    pending = executor.submit(lambda: list(map(Assembler(settings, token_ids), parts)))
    executor.shutdown(wait=False)

    def blocks() -> Iterator[pa.Table]:
        yield from pending.result()

    return blocks()


def _start_task(
    plan: Plan, sample_ids: np.ndarray, settings: SampleSettings, token_ids: TokenIds
) -> Iterator[pa.Table]:
    """Start to assemble a chunk in a Ray task, and return its blocks in order.

    The task runs on this machine, or on one with the labels of ``store.machine_labels``.
    """
    labels = dict(settings.store.machine_labels)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    references: Any = _assemble_blocks.options(
        label_selector=labels or None, scheduling_strategy="DEFAULT" if labels else here
    ).remote(_split(plan, sample_ids), settings, token_ids)

    def blocks() -> Iterator[pa.Table]:
        for reference in references:
            with own_errors():
                block = ray.get(reference)
            yield block

    return blocks()


@ray.remote(num_cpus=ASSEMBLING_CPUS, num_returns="streaming")
def _assemble_blocks(
    parts: list[pa.Table], settings: SampleSettings, token_ids: TokenIds
) -> Iterator[pa.Table]:
    for part in parts:
        yield assemble_samples(part, settings, token_ids)
