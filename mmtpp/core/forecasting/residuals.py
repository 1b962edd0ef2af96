"""Residuals of interval forecasts: uniform and exponential variables where the forecasts are right.

The probability of an interval up to the true one (probability integral transform, PIT) is uniform
between 0 and 1 where the forecasts are the distributions of the intervals. Its transform
-log(1 - PIT) is the compensator of the process between two events, by the random time change, and
exponential with mean 1. Where an interval is known to a tick, its PIT is drawn between the
probabilities at both ends of the tick, which keeps it uniform.

Source: Brown et al., The time-rescaling theorem, Neural Computation 14 (2002); for discrete times,
Czado, Gneiting and Held, Biometrics 65 (2009).

Axes: N events.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

FloatArray = NDArray[np.float64]
_TINY = 1e-12


def draw_pit(low: FloatArray, high: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(N,) a number between two probabilities, uniform for right forecasts.

    Args:
        low: (N,) probability of an interval below the tick of the true one.
        high: (N,) probability of an interval up to the end of the tick of the true one.
        rng: Generator of the draws.
    """
    return low + rng.random(len(low)) * np.maximum(high - low, 0.0)


def exponential_residuals(pit: FloatArray) -> FloatArray:
    """(N,) residuals, exponential with mean 1 for right forecasts; at most 27.6."""
    return -np.log(np.maximum(1.0 - pit, _TINY))


@dataclass(frozen=True, slots=True)
class Uniformity:
    """How far numbers are from uniform between 0 and 1: the test of Kolmogorov and Smirnov.

    Attributes:
        distance: Largest difference between the shares of numbers and of probability below a
            value, 0 to 1.
        p_value: Probability of a distance at least as large for N independent uniform numbers.
    """

    distance: float
    p_value: float

    @classmethod
    def test(cls, pit: FloatArray) -> "Uniformity":
        """Test N numbers, at least one."""
        kstest: Any = stats.kstest  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        result: Any = kstest(pit, "uniform")
        return cls(float(result.statistic), float(result.pvalue))
