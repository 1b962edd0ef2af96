"""Sampled futures of a sequence, and what a model does to be mixed into them.

Axes: N futures, S events of a future, K types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Futures:
    """N sampled continuations of a sequence.

    Attributes:
        intervals: (N, S) intervals, in the source's unit.
        types: (N, S) type codes.
        is_within: (N, S) True for events up to the horizon, False for sampled events after it.
        nll: (N, S) nats of the interval and of the type of each event. A language model scores the
            first two bytes of the interval, an expert its density; NaN for a mixture of both.
        type_probabilities: (N, S, K) probability of every type for each event.
    """

    intervals: FloatArray
    types: NDArray[np.int16]
    is_within: NDArray[np.bool_]
    nll: FloatArray
    type_probabilities: FloatArray


class MixedModel(Protocol):
    """Another model of the same futures, which is mixed with the language model."""

    def mix_intervals(self, intervals: FloatArray, rng: np.random.Generator) -> FloatArray:
        """(N,) the given intervals, some of them replaced by intervals of the other model."""
        ...

    def mix_types(self, probabilities: FloatArray, intervals: FloatArray) -> FloatArray:
        """(N, K) probabilities of the types by both models, given (N,) intervals."""
        ...

    def append(self, intervals: FloatArray, type_codes: NDArray[np.int16]) -> None:
        """Continue every future with an event."""
        ...


class RandomNumbers(Protocol):
    """What futures draw from: a generator of NumPy, or ``JoinedNumbers``."""

    def random(self, size: int, /) -> FloatArray:
        """(N,) uniform numbers."""
        ...

    def standard_normal(self, size: int, /) -> FloatArray:
        """(N,) standard normal numbers."""
        ...

    def integers(self, high: int, /, *, size: int) -> NDArray[np.int64]:
        """(N,) whole numbers from 0 to below ``high``."""
        ...


class JoinedNumbers:
    """Random numbers for the futures of several origins at once.

    Every origin has a generator of its own, so its futures do not depend on the other origins.

    Args:
        generators: Generator of each origin. The numbers of an origin are one after the other.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._generators = generators

    def random(self, size: int) -> FloatArray:
        """(N,) uniform numbers, the same number for every origin."""
        part = size // len(self._generators)
        return np.concatenate([generator.random(part) for generator in self._generators])

    def standard_normal(self, size: int) -> FloatArray:
        """(N,) standard normal numbers, the same number for every origin."""
        part = size // len(self._generators)
        return np.concatenate([generator.standard_normal(part) for generator in self._generators])

    def integers(self, high: int, *, size: int) -> NDArray[np.int64]:
        """(N,) whole numbers from 0 to below ``high``, the same number for every origin."""
        part = size // len(self._generators)
        parts = [generator.integers(high, size=part) for generator in self._generators]
        return np.concatenate(parts)


def draw(probabilities: FloatArray, rng: RandomNumbers) -> NDArray[np.int64]:
    """(N,) one index drawn from every row of (N, K) probabilities."""
    cumulative = np.cumsum(probabilities, axis=1)
    draws = rng.random(len(probabilities))[:, None] * cumulative[:, -1:]
    return (cumulative <= draws).sum(axis=1)
