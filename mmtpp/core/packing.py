"""Packing windows into samples: rows of at most ``max_tokens`` that waste little padding."""

import numpy as np

OPEN_SAMPLES = 32


def pack(num_tokens: list[int], *, max_tokens: int, seed: int) -> list[list[int]]:
    """Group windows into samples by best fit over a bounded number of open samples.

    Windows are visited in a seeded random order, so neighbours in a sample are unrelated; a
    sample closes when 32 are open and none has room.

    Args:
        num_tokens: length of each window, each at most ``max_tokens``.
        max_tokens: capacity of a sample.
        seed: makes the order a pure function of its value.

    Returns:
        Samples as lists of window indices; every window is in exactly one.
    """
    room: list[int] = []
    open_samples: list[list[int]] = []
    closed: list[list[int]] = []
    order: list[int] = np.random.default_rng(seed).permutation(len(num_tokens)).tolist()
    for window in order:
        length = num_tokens[window]
        if length > max_tokens:
            raise ValueError(f"window {window} has {length} tokens, more than {max_tokens}")
        fitting = [index for index, free in enumerate(room) if free >= length]
        if fitting:
            best = min(fitting, key=room.__getitem__)
        else:
            if len(open_samples) == OPEN_SAMPLES:
                fullest = room.index(min(room))
                closed.append(open_samples.pop(fullest))
                room.pop(fullest)
            open_samples.append([])
            room.append(max_tokens)
            best = len(room) - 1
        open_samples[best].append(window)
        room[best] -= length
    return closed + open_samples
