"""Packing windows into samples: rows of at most ``max_tokens`` with almost no padding.

Axes: W windows, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WINDOWS_AT_ONCE = 2**16  # as Python numbers, which take more memory than arrays


@dataclass(frozen=True, slots=True, eq=False)
class PackedSamples(Sequence[NDArray[np.int64]]):
    """The windows of samples; an item is the array of a sample's windows.

    Attributes:
        windows: (W,) indices of windows, one sample after the other.
        offsets: (S + 1,) start of each sample in ``windows``, and the end of the last one.
    """

    windows: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int64]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.int64]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.int64] | list[NDArray[np.int64]]:
        if isinstance(index, slice):
            return [self[sample] for sample in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} samples")
        index %= len(self)
        return self.windows[self.offsets[index] : self.offsets[index + 1]]


def pack(num_tokens: ArrayLike, *, max_tokens: int, seed: int) -> PackedSamples:
    """Group windows into samples by best fit, longest windows first.

    Windows of equal length are placed in a seeded random order. The windows within a sample are
    shuffled too.

    Args:
        num_tokens: (W,) length of each window, at least 1 and at most ``max_tokens``.
        max_tokens: Capacity of a sample, in tokens.
        seed: Seed of the random orders.

    Returns:
        The samples; every window is in exactly one of them.

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
    sample_of = _best_fit(lengths[order], max_tokens)
    windows = order[np.argsort(sample_of, kind="stable")]
    counts = np.bincount(sample_of)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    samples = PackedSamples(windows, offsets)
    for sample in samples:
        sample[:] = rng.permutation(sample)
    return samples


def _best_fit(lengths: NDArray[np.int64], max_tokens: int) -> NDArray[np.int64]:
    """(W,) sample of each window, where windows are placed in their order.

    Args:
        lengths: (W,) length of each window.
        max_tokens: Capacity of a sample, in tokens.
    """
    sample_of = np.empty(len(lengths), dtype=np.int64)
    num_samples = 0
    # samples by the room they have left, and a bit set with one bit per room that occurs
    with_room: list[list[int]] = [[] for _ in range(max_tokens + 1)]
    rooms = 0
    for start in range(0, len(lengths), _WINDOWS_AT_ONCE):
        placed: list[int] = []
        part: list[int] = lengths[start : start + _WINDOWS_AT_ONCE].tolist()
        for length in part:
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                sample = with_room[room].pop()
                if not with_room[room]:
                    rooms ^= 1 << room
            else:
                room, sample = max_tokens, num_samples
                num_samples += 1
            placed.append(sample)
            left = room - length
            with_room[left].append(sample)
            rooms |= 1 << left
        sample_of[start : start + len(placed)] = placed
    return sample_of
