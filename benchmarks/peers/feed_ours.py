"""This project's feed: rows assembled from the event store by Ray tasks, in the order of training.

The state after a number of steps is that number. With ``assembles_here`` the same rows are
assembled in this process without Ray, to separate the work from Ray's.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray

from benchmarks.peers.feed_columns import COLUMNS, STEP, Row, measure_feed
from benchmarks.peers.feed_rows import configuration, open_samples
from benchmarks.peers.measured_process import run_as_trial
from mmtpp.core.representation.row import PackedRow
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.feed import SAMPLES_PER_BLOCK, iter_rows, rank_samples
from mmtpp.data.samples.plan import Plan, load_plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.paths import join


def run(
    uri: str,
    max_tokens: int,
    stop: int | None = None,
    first_row: int = 0,
    assembles_here: bool = False,
    ray_pid: int = 0,
) -> dict[str, Any]:
    """Read an epoch, or continue one.

    Args:
        uri: Folder of the store and of the plan.
        max_tokens: Length of a packed row, in tokens.
        stop: Number of rows to read; None reads the whole epoch.
        first_row: First row of the epoch, a multiple of ``STEP``.
        assembles_here: Whether the rows are assembled in this process.
        ray_pid: Process of Ray's head, whose CPU time counts.
    """
    if not assembles_here:
        ray.init(log_to_driver=False)  # a training has connected long before

    cache = tempfile.TemporaryDirectory()

    def open_feed() -> Iterator[Row]:
        config = configuration(uri, max_tokens, cache.name)
        settings, vocabulary = open_samples(config)
        plan = load_plan(join(uri, "plan.parquet"))
        samples = rank_samples(
            plan,
            seed=0,
            first_step=first_row // STEP,
            end_step=-(-plan.num_samples // STEP),
            samples_per_step=STEP,
            rank=0,
            num_ranks=1,
        )[: plan.num_samples - first_row]
        if assembles_here:
            rows = _assembled(plan, samples, settings, vocabulary)
        else:
            rows = iter_rows(plan, samples, settings, vocabulary.token_ids())
        return map(_columns, rows)

    pids = () if assembles_here else (ray_pid,)
    with cache:
        return measure_feed(open_feed, pids=pids, stop=stop)


def _assembled(
    plan: Plan, samples: np.ndarray, settings: SampleSettings, vocabulary: Vocabulary
) -> Iterator[PackedRow]:
    assemble = Assembler(settings, vocabulary.token_ids())
    for start in range(0, len(samples), SAMPLES_PER_BLOCK):
        table = assemble(samples_table(plan, samples[start : start + SAMPLES_PER_BLOCK]))
        for index in range(len(table)):
            yield row_from_arrow(table, index, image_px=settings.image_px)


def _columns(row: PackedRow) -> Row:
    return {name: getattr(row, name) for name in COLUMNS}


if __name__ == "__main__":
    run_as_trial(run)
