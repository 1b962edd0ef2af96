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
    """Weights of the first model, which is the language model, from 0 to 1.

    The second model, the temporal expert, has the remaining weights.

    Attributes:
        time: Weight of the language model's distribution of the interval.
        type: Weight of the language model's distribution of the type.
    """

    time: float
    type: float

    def __post_init__(self) -> None:
        for name, weight in (("time", self.time), ("type", self.type)):
            if not 0 <= weight <= 1:
                raise ValueError(f"the weight {name} = {weight} is not in 0..1")


@dataclass(frozen=True, slots=True)
class IntervalLikelihoods:
    """Likelihoods of the true intervals by a model.

    Attributes:
        nll: (N,) nats of the interval's density. Without a clock, it is conditional on an interval
            above 0, and NaN for simultaneous events, which have no density.
        simultaneous: (N,) probability that the event was simultaneous.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
    """

    nll: FloatArray
    simultaneous: FloatArray
    tick: float

    def log_likelihoods(self) -> FloatArray:
        """(N,) log-likelihood of every event: its density, or its probability where it has none."""
        if self.tick:
            return -self.nll
        with np.errstate(divide="ignore"):
            of_zero, of_positive = np.log(self.simultaneous), np.log1p(-self.simultaneous)
        return np.where(np.isnan(self.nll), of_zero, of_positive - self.nll)

    def mixed_with(self, other: "IntervalLikelihoods", weight: float) -> "IntervalLikelihoods":
        """Likelihoods of the mixture with another model.

        Args:
            other: Likelihoods of the same events by the other model.
            weight: Weight of this model, 0 to 1; the other one has the remaining weight.
        """
        simultaneous = weight * self.simultaneous + (1 - weight) * other.simultaneous
        mixed = mix_logs(weight, self.log_likelihoods(), other.log_likelihoods())
        if self.tick:
            return IntervalLikelihoods(-mixed, simultaneous, self.tick)
        nll = np.where(np.isnan(self.nll), np.nan, np.log1p(-simultaneous) - mixed)
        return IntervalLikelihoods(nll, simultaneous, self.tick)


def mix_logs(weight: float, first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Logarithm of the weighted mean of probabilities or densities.

    Args:
        weight: Weight of the first, 0 to 1.
        first: Logarithms; a probability of 0 is minus infinity.
        second: Logarithms of the same shape.

    Returns:
        The logarithms of the means; NaN where a logarithm is NaN.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if weight in (0, 1):  # 0 times a probability of infinite logarithm would be undefined
        return np.array(first if weight else second)
    with np.errstate(invalid="ignore"):
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
