"""Paired difference of the losses of two models on the same targets, resampled by sequence.

Axes: S sequences, R resamples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.evaluate.scores.estimates import percentile_interval

RESAMPLES = 10_000
"""Number of resamples, larger than that of single metrics: the ends of this interval decide which
model is better, and a resample is only two sums over sequences."""
DRAWN_AT_ONCE = 1000
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean difference of the negative log-likelihoods of two models.

    Attributes:
        value: First model minus second model, in nats per event; below 0 the first is better.
        standard_error: Standard deviation of the difference over resampled sequences.
        low, high: Ends of the 95 % interval over resampled sequences.
        num_sequences: Number of sequences.
    """

    value: float
    standard_error: float
    low: float
    high: float
    num_sequences: int


def paired_difference(
    first: FloatArray,
    second: FloatArray,
    num_events: FloatArray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Subtract the losses of one model from those of another, on the same targets.

    Every resample draws the same sequences for both models, with replacement. A sequence that is
    hard for both models therefore does not widen the interval.

    Args:
        first: (S,) sums of the first model's losses by sequence, in nats; at least one sequence.
        second: (S,) sums of the second model's losses, in the same order.
        num_events: (S,) number of targets of each sequence.
        seed: Seed of the resamples.
        resamples: Number of resamples, at least 2.
    """
    differences = first - second
    drawn = _resampled_means(differences, num_events, np.random.default_rng(seed), resamples)
    low, high = percentile_interval(drawn)
    value = float(differences.sum() / num_events.sum())
    return Difference(value, float(np.std(drawn, ddof=1)), low, high, len(num_events))


def _resampled_means(
    sums: FloatArray, num_events: FloatArray, rng: np.random.Generator, resamples: int
) -> FloatArray:
    """(R,) means per event over drawn sequences; resamples without any event are left out."""
    parts: list[FloatArray] = []
    probabilities = np.full(len(sums), 1 / len(sums))
    for start in range(0, resamples, DRAWN_AT_ONCE):
        size = min(DRAWN_AT_ONCE, resamples - start)
        counts = rng.multinomial(len(sums), probabilities, size=size)
        drawn_events = counts @ num_events
        has_events = drawn_events > 0
        parts.append((counts @ sums)[has_events] / drawn_events[has_events])
    return np.concatenate(parts)
