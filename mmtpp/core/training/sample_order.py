"""The order of training samples: a pure function of fingerprint, seed and epoch.

The number of workers does not change which samples a step consumes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.seeds import seed_from


@dataclass(frozen=True, slots=True)
class Replay:
    """Older samples of which every epoch draws some; they are numbered after all other samples.

    Attributes:
        num_older: Number of older samples.
        num_drawn: Number of them in one epoch, at most ``num_older``, drawn without replacement.
    """

    num_older: int
    num_drawn: int


NO_REPLAY = Replay(0, 0)


def samples_of_step(
    step: int,
    *,
    num_samples: int,
    samples_per_step: int,
    fingerprint: str,
    seed: int,
    replay: Replay = NO_REPLAY,
) -> NDArray[np.int64]:
    """The samples that all workers together consume in one optimiser step.

    Every epoch visits every sample once, in a fresh order, mixed with the older samples that the
    epoch draws. A step may span two epochs.

    Args:
        step: Number of the step, from 0.
        num_samples: Number of samples that every epoch visits, at least 1.
        samples_per_step: Global batch, independent of the number of workers.
        fingerprint: Fingerprint of the data and of every setting that shapes the samples.
        seed: Seed of the run.
        replay: Further samples, of which an epoch draws some.

    Returns:
        (samples_per_step,) indices of samples.
    """
    if num_samples < 1:
        raise ValueError("there are no samples to draw from")
    positions = np.arange(step * samples_per_step, (step + 1) * samples_per_step, dtype=np.int64)
    samples = np.empty(samples_per_step, dtype=np.int64)
    epoch_size = num_samples + replay.num_drawn
    for epoch in np.unique(positions // epoch_size):
        order = _epoch_order(num_samples, replay, fingerprint, seed, int(epoch))
        in_epoch = positions // epoch_size == epoch
        samples[in_epoch] = order[positions[in_epoch] % epoch_size]
    return samples


@lru_cache(maxsize=2)
def _epoch_order(
    num_samples: int, replay: Replay, fingerprint: str, seed: int, epoch: int
) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed_from("order", fingerprint, seed, epoch))
    older = rng.choice(replay.num_older, replay.num_drawn, replace=False)
    return rng.permutation(np.append(np.arange(num_samples), num_samples + older))


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
