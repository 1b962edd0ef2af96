"""The order of training samples: a pure function of fingerprint, seed and epoch.

The number of workers does not change which samples a step consumes.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.seeds import seed_from


def samples_of_step(
    step: int, *, num_samples: int, samples_per_step: int, fingerprint: str, seed: int
) -> NDArray[np.int64]:
    """The samples that all workers together consume in one optimiser step.

    Every epoch visits every sample once, in a fresh order. A step may span two epochs.

    Args:
        step: Number of the step, from 0.
        num_samples: Number of samples in one epoch, at least 1.
        samples_per_step: Global batch, independent of the number of workers.
        fingerprint: Fingerprint of the data and of every setting that shapes the samples.
        seed: Seed of the run.

    Returns:
        (samples_per_step,) indices into the epoch's samples.
    """
    if num_samples < 1:
        raise ValueError("there are no samples to draw from")
    positions = np.arange(step * samples_per_step, (step + 1) * samples_per_step, dtype=np.int64)
    samples = np.empty(samples_per_step, dtype=np.int64)
    for epoch in np.unique(positions // num_samples):
        order = _epoch_order(num_samples, fingerprint, seed, int(epoch))
        in_epoch = positions // num_samples == epoch
        samples[in_epoch] = order[positions[in_epoch] % num_samples]
    return samples


@lru_cache(maxsize=2)
def _epoch_order(num_samples: int, fingerprint: str, seed: int, epoch: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed_from("order", fingerprint, seed, epoch))
    return rng.permutation(num_samples)


def share_of_rank(samples: NDArray[np.int64], *, rank: int, num_ranks: int) -> NDArray[np.int64]:
    """The contiguous part of a step's samples that one rank consumes, in order.

    Args:
        samples: (G,) samples of one step.
        rank: Rank of the worker, from 0.
        num_ranks: Number of workers in the group, at most G.

    Returns:
        (G // num_ranks,) indices, one more for the first G % num_ranks ranks.

    Raises:
        ValueError: A rank would get no sample.
    """
    if len(samples) < num_ranks:
        raise ValueError(f"{len(samples)} samples per step are too few for {num_ranks} workers")
    return np.array_split(samples, num_ranks)[rank]


def num_micro_batches(samples_per_step: int, *, num_ranks: int) -> int:
    """Number of micro-batches of every rank in a step: the size of the largest share.

    A rank with a smaller share repeats its last row, whose labels have no weight.
    """
    return -(-samples_per_step // num_ranks)
