"""Sampled futures of a sequence, and what a model does to be mixed into them.

Axes: N futures, S events of a future, K types.
"""

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


def draw(probabilities: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N,) one index drawn from every row of (N, K) probabilities."""
    cumulative = np.cumsum(probabilities, axis=1)
    draws = rng.random(len(probabilities))[:, None] * cumulative[:, -1:]
    return (cumulative <= draws).sum(axis=1)
