"""Estimates: values with confidence intervals from a bootstrap over sequences.

The intervals draw sequences with replacement, because events of one sequence are not independent.

Axes: N values, S sequences, M sums, R resamples.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

RESAMPLES = 1000
"""Number of resamples: at each end of a 95 % interval, 25 of them lie outside. More would cost time
for every metric of the model and of each baseline."""
CONFIDENCE = 0.95
ENOUGH_SEQUENCES = 20
"""Bootstrap intervals over fewer sequences are too narrow: see ``few_sequences_warning``."""
DRAWN_AT_ONCE = 10**7  # numbers
FloatArray = NDArray[np.float64]
Ratio = tuple[FloatArray, FloatArray]
"""(N,) numerators and (N,) denominators of a metric that is a ratio of sums."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric and its bootstrap interval.

    Attributes:
        value: Value over all targets.
        low, high: Ends of the 95 % interval over sequences.
    """

    value: float
    low: float
    high: float


def mean_estimates(
    values: Mapping[str, Ratio],
    sequence: NDArray[np.integer],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Estimate ratios of sums with confidence intervals; undefined ratios are left out.

    Args:
        values: Numerators and denominators by metric.
        sequence: (N,) index of the sequence of each value, from 0.
        seed: Seed of the bootstrap.
        resamples: Number of resamples of the sequences.
    """
    _, owner = np.unique(sequence, return_inverse=True)
    draws = SequenceDraws(int(owner.max()) + 1, resamples, seed)
    estimates: dict[str, Estimate] = {}
    for name, ratio in values.items():
        sums = np.stack([np.bincount(owner, part, draws.num_sequences) for part in ratio], axis=1)
        numerator, denominator = sums.sum(axis=0)
        if denominator > 0:
            drawn = draws.sums(sums.astype(np.float64))
            drawn = drawn[drawn[:, 1] > 0]
            interval = percentile_interval(drawn[:, 0] / drawn[:, 1])
            estimates[name] = Estimate(float(numerator / denominator), *interval)
    return estimates


@dataclass(frozen=True, slots=True)
class SequenceDraws:
    """Resamples of the sequences.

    They may be too many to keep in memory, so they are drawn again for each use.

    Attributes:
        num_sequences: Number of sequences, S.
        resamples: Number of resamples, R.
        seed: Seed of the draws.
    """

    num_sequences: int
    resamples: int
    seed: int

    def sums(self, by_sequence: FloatArray) -> FloatArray:
        """(R, M) sums over the drawn sequences of (S, M) sums by sequence."""
        rng = np.random.default_rng(self.seed)
        probabilities = np.full(self.num_sequences, 1 / self.num_sequences)
        size = max(1, DRAWN_AT_ONCE // self.num_sequences)
        parts = []
        for start in range(0, self.resamples, size):
            count = min(size, self.resamples - start)
            parts.append(
                rng.multinomial(self.num_sequences, probabilities, size=count) @ by_sequence
            )
        return np.concatenate(parts)


def percentile_interval(drawn: FloatArray) -> tuple[float, float]:
    """Ends of the 95 % interval of values that were computed from resamples; at least one."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def as_estimate(value: FloatArray, drawn: FloatArray) -> Estimate:
    """A value with the interval of its resamples; undefined resamples are left out."""
    drawn = drawn[~np.isnan(drawn)]
    low, high = percentile_interval(drawn) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def finite_values(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Values of the metrics; metrics that are not finite are left out and logged."""
    infinite = [name for name, part in estimates.items() if not np.isfinite(part.value)]
    if infinite:
        logger.warning(
            "these metrics are not finite and are left out of the result: %s", ", ".join(infinite)
        )
    return {name: part.value for name, part in estimates.items() if name not in infinite}


def as_json_tree(estimates: Mapping[str, Estimate]) -> dict[str, object]:
    """Estimates as JSON values; an infinite value becomes None.

    JSON has no infinity, which is the NLL of a baseline that gives an event no probability.
    """
    return {
        name: {key: value if np.isfinite(value) else None for key, value in asdict(part).items()}
        for name, part in estimates.items()
    }


def few_sequences_warning(num_sequences: int) -> str | None:
    """A warning about intervals over fewer than ``ENOUGH_SEQUENCES`` sequences, otherwise None.

    The coverage in the warning is simulated in ``tests/unit/evaluate/test_metrics.py``, for
    sequences whose errors are exponentially distributed.
    """
    if num_sequences >= ENOUGH_SEQUENCES:
        return None
    return (
        f"{num_sequences} held-out sequences are few: with 10 sequences, a 95 % interval contains "
        f"the true value in about 85 % of cases only; hold out at least {ENOUGH_SEQUENCES}"
    )
