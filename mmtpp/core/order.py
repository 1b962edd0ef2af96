"""The order of samples: a pure function of (fingerprint, seed, epoch), not of the world size."""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def seed_from(*parts: object) -> int:
    """A 64-bit seed from any printable parts, the same in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def samples_of_step(
    step: int, *, num_samples: int, samples_per_step: int, fingerprint: str, seed: int
) -> NDArray[np.int64]:
    """Which samples the whole cluster consumes in one optimiser step.

    Every epoch visits each sample once, in a fresh order; a step may straddle two epochs.

    Args:
        step: from 0.
        num_samples: samples of one epoch, at least 1.
        samples_per_step: the global batch, constant whatever the number of workers.
        fingerprint: of the data and of everything that shapes the samples.
        seed: the run's seed.

    Returns:
        (samples_per_step,) indices into the epoch's samples.
    """
    if num_samples < 1:
        raise ValueError("there are no samples to draw from")
    positions = np.arange(step * samples_per_step, (step + 1) * samples_per_step, dtype=np.int64)
    chosen = np.empty(samples_per_step, dtype=np.int64)
    for epoch in np.unique(positions // num_samples):
        order = _epoch_order(num_samples, fingerprint, seed, int(epoch))
        in_epoch = positions // num_samples == epoch
        chosen[in_epoch] = order[positions[in_epoch] % num_samples]
    return chosen


@lru_cache(maxsize=2)
def _epoch_order(num_samples: int, fingerprint: str, seed: int, epoch: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed_from("order", fingerprint, seed, epoch))
    return rng.permutation(num_samples)


def share_of_rank(samples: NDArray[np.int64], *, rank: int, num_ranks: int) -> NDArray[np.int64]:
    """The contiguous part of a step's samples that one rank consumes, in order.

    Args:
        samples: (G,) of one step.
        rank: from 0.
        num_ranks: workers in the group, at most G.

    Returns:
        (G // num_ranks,) indices, one more for the first G % num_ranks ranks.

    Raises:
        ValueError: a rank would have nothing to do.
    """
    if len(samples) < num_ranks:
        raise ValueError(f"{len(samples)} samples a step are too few for {num_ranks} workers")
    return np.array_split(samples, num_ranks)[rank]


def num_micro_batches(samples_per_step: int, *, num_ranks: int) -> int:
    """Micro-batches of every rank in a step: the largest share, which the others fill up to."""
    return -(-samples_per_step // num_ranks)
