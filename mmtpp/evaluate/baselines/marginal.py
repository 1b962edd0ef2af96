"""The training distribution of intervals and types, without any history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.forecasting.training_distribution import TrainingDistribution
from mmtpp.core.point_processes.history import History


@dataclass(frozen=True, slots=True)
class Marginal:
    """Forecasts intervals by their smoothed training distribution, and types by their frequencies.

    Attributes:
        distribution: The training distribution.
    """

    distribution: TrainingDistribution

    @classmethod
    def fit(
        cls, train: Sequence[History], grid: IntervalGrid, num_types: int, *, tick: float
    ) -> "Marginal":
        """Fit the distributions to training sequences.

        Args:
            train: Training sequences, at least one of them with two events.
            grid: Grid of the forecasts.
            num_types: Number of types, K.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
        """
        intervals = np.concatenate([history.intervals for history in train])
        types = np.concatenate([history.types[1:] for history in train])
        return cls(TrainingDistribution.fit(intervals, types, grid, num_types, tick=tick))

    def forecast_intervals(
        self, history: History, grid: IntervalGrid
    ) -> Iterator[IntervalForecasts]:
        """Forecast the intervals of all events but the first, in chunks."""
        for rows in history.chunks():
            yield self.distribution.forecasts(rows.stop - rows.start, grid)

    def forecast_types(self, history: History) -> NDArray[np.float64]:
        """(E - 1, K) log-probabilities of the types."""
        return np.tile(self.distribution.type_logs, (len(history.times) - 1, 1))
