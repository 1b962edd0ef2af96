"""Packing windows into samples: rows of at most ``max_tokens`` with almost no padding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack(num_tokens: Sequence[int], *, max_tokens: int, seed: int) -> list[list[int]]:
    """Group windows into samples by best fit, longest windows first.

    Windows of equal length are placed in a seeded random order. The windows within a sample are
    shuffled too.

    Args:
        num_tokens: Length of each window, at least 1 and at most ``max_tokens``.
        max_tokens: Capacity of a sample, in tokens.
        seed: Seed of the random orders.

    Returns:
        Samples as lists of window indices; every window is in exactly one sample.

    Raises:
        ValueError: A window is longer than a sample.
    """
    lengths = np.asarray(num_tokens, dtype=np.int64)
    if (lengths > max_tokens).any():
        window = int(np.argmax(lengths > max_tokens))
        raise ValueError(f"window {window} has {lengths[window]} tokens, more than {max_tokens}")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(lengths))
    order: NDArray[np.int64] = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    samples: list[list[int]] = []
    # samples by the room they have left, and a bit set with one bit per room that occurs
    with_room: list[list[int]] = [[] for _ in range(max_tokens + 1)]
    rooms = 0
    for window in order.tolist():
        length = int(lengths[window])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            sample = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, sample = max_tokens, len(samples)
            samples.append([])
        samples[sample].append(window)
        left = room - length
        with_room[left].append(sample)
        rooms |= 1 << left
    return [rng.permutation(sample).tolist() for sample in samples]
