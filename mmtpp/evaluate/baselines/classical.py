"""Classical point processes and trivial predictors, for the same events and the same metrics.

    marginal   the training distribution of the intervals and of the types, without any history
    poisson    a homogeneous process for each type: exponential intervals
    last       the interval and the type of the previous event
    hawkes     a Hawkes process: every event raises the rate of every type, and the excitation
               decays as a sum of exponentials

Axes: E events of a sequence, K types, G bins of the grid.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid, IntervalRange
from mmtpp.core.point_processes.hawkes import Hawkes
from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.baselines.marginal import Marginal
from mmtpp.evaluate.scores.targets import complete_targets, scored_time_columns, type_columns

logger = logging.getLogger(__name__)

FINE = 64  # the smallest bin of the grid is at most a tick divided by this number


@dataclass(frozen=True, slots=True)
class Baselines:
    """The fitted baselines.

    Attributes:
        grid: Grid of the interval forecasts.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        num_types: Number of types that occur, K.
        median: Median training interval, in the source's unit.
        models: Fitted models by name.
    """

    grid: IntervalGrid
    tick: float
    num_types: int
    median: float
    models: dict[str, Marginal | Hawkes]

    @classmethod
    def fit(
        cls,
        train: Sequence[History],
        test: IntervalRange | None,
        *,
        tick: float,
        num_types: int,
        report: Callable[[int], None] = lambda count: None,
    ) -> "Baselines":
        """Fit the baselines.

        Args:
            train: Training sequences of at least two events; at least one sequence.
            test: Range of the intervals to forecast, so that the grid covers all of them; None
                where all events are simultaneous.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
            num_types: Number of types that occur, K; ``History.types`` are indices of them.
            report: Called with the number of types whose Hawkes process is fitted.
        """
        known = interval_range_of(train, tick=tick)
        ranges = [span for span in (known, test) if span]
        smallest = min((span.smallest for span in ranges), default=tick or 1.0)
        # a process in continuous time also needs fine bins within the first half tick
        smallest = min(smallest, tick / FINE) if tick else smallest
        largest = max((span.largest for span in ranges), default=tick or 1.0)
        grid = IntervalRange(smallest, largest, tick).grid(num_bytes=2)
        models: dict[str, Marginal | Hawkes] = {
            "marginal": Marginal.fit(train, grid, num_types, tick=tick)
        }
        if known is None:
            logger.warning(
                "all training events are simultaneous: there is no Poisson or Hawkes process"
            )
        else:
            models["poisson"] = Hawkes.fit(train, num_types, decays=())
            models["hawkes"] = Hawkes.fit(train, num_types, report=report)
        median = float(np.median(np.concatenate([history.intervals for history in train])))
        return cls(grid, tick, num_types, median, models)

    def forecast(self, history: History) -> dict[str, pa.Table]:
        """Forecast all events of a sequence but the first, ``TARGET_SCHEMA`` by baseline."""
        size = len(history.times) - 1
        shared = _event_columns(history)
        last = shared | _last_columns(history, self.median)
        tables = {"last": complete_targets(last, size)}
        for name, model in self.models.items():
            parts = [
                scored_time_columns(forecasts, history.intervals[rows], tick=self.tick)
                for rows, forecasts in zip(
                    history.chunks(), model.forecast_intervals(history, self.grid), strict=True
                )
            ]
            columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            log_probability = model.forecast_types(history)
            # a Hawkes process forecasts the type at the event's time, so only given the time
            for prefix in ("joint_",) if name == "hawkes" else ("", "joint_"):
                columns |= type_columns(
                    prefix, log_probability, history.types[1:], np.arange(self.num_types)
                )
            tables[name] = complete_targets(shared | columns, size)
        return tables


def interval_range_of(histories: Iterable[History], *, tick: float) -> IntervalRange | None:
    """Range of the positive intervals of sequences; None where no interval is positive."""
    intervals = np.concatenate([np.empty(0), *(history.intervals for history in histories)])
    positive = intervals[intervals > 0]
    if not len(positive):
        return None
    return IntervalRange(float(positive.min()), float(positive.max()), tick)


def select_targets(
    forecasts: Sequence[dict[str, pa.Table]], targets: pa.Table
) -> dict[str, pa.Table]:
    """Keep the forecasts of a model's targets.

    Args:
        forecasts: ``TARGET_SCHEMA`` by baseline, for each sequence; at least one.
        targets: Table with the columns ``sequence_id`` and ``position``.

    Returns:
        ``TARGET_SCHEMA`` by baseline, the rows sorted by sequence and position.
    """
    wanted = targets.select(["sequence_id", "position"])
    return {
        name: pa.concat_tables([tables[name] for tables in forecasts])
        .join(wanted, keys=["sequence_id", "position"], join_type="inner")
        .sort_by([("sequence_id", "ascending"), ("position", "ascending")])
        for name in forecasts[0]
    }


def _event_columns(history: History) -> dict[str, object]:
    size = len(history.times) - 1
    return {
        "sequence_id": [history.sequence_id] * size,
        "position": np.arange(1, size + 1),
        "time": history.times[1:],
        "interval": history.intervals,
        "type": history.types[1:],
    }


def _last_columns(history: History, median: float) -> dict[str, NDArray]:
    """The previous interval and type as a point forecast, whose CRPS is its absolute error.

    The first forecast event has no previous interval; the training median takes its place.
    """
    previous = np.append(median, history.intervals[:-1])
    point = dict.fromkeys(("mean", "greedy", "quantile_50"), previous)
    error = np.abs(previous - history.intervals)
    return {**point, "crps": error, "predicted_type": history.types[:-1]}
