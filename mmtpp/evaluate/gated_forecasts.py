"""Forecasts of a temporal expert with a gate, which are mixed with those of a language model.

Axes: Q forecast events of a row, K types.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.forecasting.gate import Gate, IntervalLikelihoods, mix_logs
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GatedForecasts:
    """Forecasts of an expert, and how they are mixed with those of a language model.

    Attributes:
        gate: Weights of the language model.
        intervals: Distributions of the interval, on the language model's grid.
        likelihoods: Likelihoods of the true intervals.
        type: (Q, K) log probability of the type, from the history alone.
        joint: (Q, K) log probability of the type, given the true interval.
    """

    gate: Gate
    intervals: IntervalForecasts
    likelihoods: IntervalLikelihoods
    type: FloatArray
    joint: FloatArray

    def mix_intervals(self, intervals: IntervalForecasts) -> IntervalForecasts:
        """The mixture's distributions of the interval, from the language model's."""
        return intervals.mixed_with(self.intervals, self.gate.time)

    def mix_likelihoods(self, likelihoods: IntervalLikelihoods) -> IntervalLikelihoods:
        """The mixture's likelihoods of the true intervals, from the language model's."""
        return likelihoods.mixed_with(self.likelihoods, self.gate.time)

    def mix_types(self, log_probability: FloatArray) -> FloatArray:
        """(Q, K) log probability of the type by the mixture, from the history alone."""
        return mix_logs(self.gate.type, log_probability, self.type)

    def mix_joint_types(self, log_probability: FloatArray) -> FloatArray:
        """(Q, K) log probability of the type by the mixture, given the true interval."""
        return mix_logs(self.gate.type, log_probability, self.joint)
