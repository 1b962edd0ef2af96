"""The mixture of two models' forecasts: a gate weighs their probabilities.

The probability of an interval is the weighted mean of the two models' probabilities, and so is the
probability of a type given the interval, with a weight of its own. Both means are distributions, so
the mixture has a likelihood on the same terms as its parts.

Axes: N events.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

FloatArray = NDArray[np.float64]
_EDGE = 1e-6  # weights closer to 0 or 1 leave one of the models out


@dataclass(frozen=True, slots=True)
class Gate:
    """Weights of the first model, 0 to 1; the second model has the remaining weights.

    Attributes:
        time: Weight of its distribution of the interval.
        type: Weight of its distribution of the type.
    """

    time: float
    type: float

    def __post_init__(self) -> None:
        for name, weight in (("time", self.time), ("type", self.type)):
            if not 0 <= weight <= 1:
                raise ValueError(f"the weight {name} = {weight} is not in 0..1")


def mix_logs(weight: float, first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Logarithm of the weighted mean of probabilities or densities.

    Args:
        weight: Weight of the first, 0 to 1.
        first: Logarithms; a probability of 0 is minus infinity.
        second: Logarithms of the same shape.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if weight in (0, 1):  # 0 times a probability of infinite logarithm would be undefined
        return np.array(first if weight else second)
    return np.logaddexp(np.log(weight) + first, np.log1p(-weight) + second)


def fit_weight(first: ArrayLike, second: ArrayLike) -> float:
    """Weight of the first model that maximises the mean log-likelihood of the mixture.

    The log-likelihood is concave in the weight, so its maximum is where the slope is 0, or at 0 or
    1. Events to which both models give no probability, and events without a density (NaN), do not
    count.

    Args:
        first: (N,) log-likelihoods of events by the first model.
        second: (N,) log-likelihoods of the same events by the second model.

    Raises:
        ValueError: No event counts.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    largest = np.maximum(first, second)
    counts = np.isfinite(largest)
    if not counts.any():
        raise ValueError("no event has a likelihood by either model")
    p = np.exp(first[counts] - largest[counts])
    q = np.exp(second[counts] - largest[counts])

    def slope(weight: float) -> float:
        return float(np.mean((p - q) / (weight * p + (1 - weight) * q)))

    if slope(_EDGE) <= 0:
        return 0.0
    if slope(1 - _EDGE) >= 0:
        return 1.0
    weight = optimize.brentq(slope, _EDGE, 1 - _EDGE)  # pyright: ignore
    return float(np.asarray(weight))
