"""Feed: the packed rows of one rank, in the order of the plan, executed by Ray Data.

The order is a pure function of (fingerprint, seed, step), so the whole resume state is the step.
Each rank runs its own Ray Data pipeline over its share: one assembling actor that works ahead.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray

from mmtpp.core.order import samples_of_step, share_of_rank
from mmtpp.core.row import Row
from mmtpp.core.template import TokenIds
from mmtpp.data.assemble import Assembler, AssembleSettings, Plan, row_from_arrow, samples_table

SAMPLES_PER_BLOCK = 16
# The assembler of a rank idles most of the time; asking for a CPU could deadlock a full cluster.
ASSEMBLER_CPUS = 0


def rank_samples(
    plan: Plan,
    *,
    seed: int,
    first_step: int,
    num_steps: int,
    samples_per_step: int,
    rank: int,
    num_ranks: int,
) -> np.ndarray:
    """Samples one rank consumes from ``first_step`` to before ``num_steps``, in order.

    Returns:
        (steps * samples_per_step / num_ranks,) int64.
    """
    shares = [
        share_of_rank(
            samples_of_step(
                step,
                num_samples=len(plan.samples),
                samples_per_step=samples_per_step,
                fingerprint=plan.fingerprint,
                seed=seed,
            ),
            rank=rank,
            num_ranks=num_ranks,
        )
        for step in range(first_step, num_steps)
    ]
    return np.concatenate(shares) if shares else np.zeros(0, dtype=np.int64)


def iter_rows(
    plan: Plan, sample_ids: np.ndarray, settings: AssembleSettings, token_ids: TokenIds
) -> Iterator[Row]:
    """Packed rows of these samples, in this order, assembled ahead by a Ray Data actor."""
    if len(sample_ids) == 0:
        return
    blocks = [
        samples_table(plan, sample_ids[start : start + SAMPLES_PER_BLOCK])
        for start in range(0, len(sample_ids), SAMPLES_PER_BLOCK)
    ]
    for batch in _assembled(blocks, settings, token_ids).iter_batches(
        batch_size=SAMPLES_PER_BLOCK, batch_format="pyarrow", prefetch_batches=2
    ):
        for index in range(len(batch)):
            yield row_from_arrow(batch, index, image_px=settings.image_px)


def _assembled(
    blocks: list[pa.Table], settings: AssembleSettings, token_ids: TokenIds
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return ray.data.from_arrow(blocks).map_batches(
        Assembler,
        fn_constructor_args=(settings, token_ids),
        batch_size=SAMPLES_PER_BLOCK,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=ASSEMBLER_CPUS,
    )
