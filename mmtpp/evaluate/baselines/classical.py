"""Classical point processes and trivial predictors, on the same events and by the same metrics.

    marginal   the training distribution of the intervals and of the types, without any history
    poisson    a homogeneous process for each type: exponential intervals
    last       the interval and the type of the event before
    hawkes     a Hawkes process: every event raises the rate of every type, and the excitation
               decays as a sum of exponentials

Axes: E events of a sequence, K types, G steps of the grid.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.interval_forecasts import IntervalGrid, IntervalRange
from mmtpp.evaluate.baselines.hawkes import Hawkes
from mmtpp.evaluate.baselines.history import History
from mmtpp.evaluate.baselines.marginal import Marginal
from mmtpp.evaluate.targets import TARGET_SCHEMA, time_columns, type_columns

logger = logging.getLogger(__name__)

FINE = 64  # steps of the grid reach down to this part of a tick


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
            train: Training sequences of two events or more; at least one.
            test: Range of the intervals to forecast, so that none is off the grid; None when
                there are only simultaneous events.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
            num_types: Number of types that occur, K; ``History.types`` are indices of them.
            report: Called with the number of types whose Hawkes process is fitted.
        """
        known = interval_range_of(train, tick=tick)
        spans = [each for each in (known, test) if each]
        smallest = min((each.smallest for each in spans), default=tick or 1.0)
        # the steps of a process in continuous time are fine within the first half tick, too
        smallest = min(smallest, tick / FINE) if tick else smallest
        largest = max((each.largest for each in spans), default=tick or 1.0)
        grid = IntervalRange(smallest, largest, tick).grid(num_bytes=2)
        models: dict[str, Marginal | Hawkes] = {
            "marginal": Marginal(train, grid, num_types, tick=tick)
        }
        if known is None:
            logger.warning("all training events are simultaneous: no Poisson or Hawkes process")
        else:
            models["poisson"] = Hawkes(train, num_types, decays=())
            models["hawkes"] = Hawkes(train, num_types, report=report)
        median = float(np.median(np.concatenate([each.intervals for each in train])))
        return cls(grid, tick, num_types, median, models)

    def forecast(self, history: History) -> dict[str, pa.Table]:
        """Forecasts of all events of a sequence but the first, ``TARGET_SCHEMA`` by baseline."""
        shared = _shared_columns(history)
        tables = {"last": _table(shared | _last(history, self.median))}
        for name, model in self.models.items():
            parts = [
                time_columns(forecasts, history.intervals[rows], tick=self.tick)
                for rows, forecasts in zip(
                    history.chunks(), model.intervals(history, self.grid), strict=True
                )
            ]
            columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            chances = model.types(history)
            # a Hawkes process forecasts the type at the event's time, so it knows the time
            for prefix in ("joint_",) if name == "hawkes" else ("", "joint_"):
                columns |= type_columns(
                    prefix, chances, history.types[1:], np.arange(self.num_types)
                )
            tables[name] = _table(shared | columns)
        return tables


def interval_range_of(histories: Iterable[History], *, tick: float) -> IntervalRange | None:
    """Range of the positive intervals of sequences; None where no interval is positive."""
    intervals = [history.intervals for history in histories]
    positive = np.concatenate([np.empty(0), *[each[each > 0] for each in intervals]])
    if not len(positive):
        return None
    return IntervalRange(float(positive.min()), float(positive.max()), tick)


def baseline_targets(
    train: Sequence[History],
    test: Sequence[History],
    targets: pa.Table,
    *,
    tick: float,
    num_types: int,
) -> dict[str, pa.Table]:
    """Fit the baselines and forecast the targets of a model, in this process.

    Args:
        train: Training sequences of two events or more; at least one.
        test: The sequences of the targets.
        targets: ``targets.TARGET_SCHEMA``; only the names and positions are used.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        num_types: Number of types that occur, K; ``History.types`` are indices of them.

    Returns:
        ``TARGET_SCHEMA`` by baseline, the rows sorted by sequence and position.
    """
    fitted = Baselines.fit(
        train, interval_range_of(test, tick=tick), tick=tick, num_types=num_types
    )
    names = set(targets["sequence_id"].to_pylist())
    found = [fitted.forecast(each) for each in test if each.sequence_id in names]
    return select_targets(found, targets)


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


def _shared_columns(history: History) -> dict[str, object]:
    size = len(history.times) - 1
    return {
        "sequence_id": [history.sequence_id] * size,
        "position": np.arange(1, size + 1),
        "time": history.times[1:],
        "interval": history.intervals,
        "type": history.types[1:],
    }


def _last(history: History, median: float) -> dict[str, NDArray]:
    """The event before, as a forecast: a point, whose CRPS is its absolute error. The first event
    that is forecast has no interval before it; the training median takes its place."""
    before = np.append(median, history.intervals[:-1])
    point = dict.fromkeys(("mean", "greedy", "quantile_50"), before)
    error = np.abs(before - history.intervals)
    return {**point, "crps": error, "predicted_type": history.types[:-1]}


def _table(columns: dict[str, object]) -> pa.Table:
    size = len(columns["sequence_id"])  # pyright: ignore[reportArgumentType]
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(size, field.type)
            for field in TARGET_SCHEMA
        },
        schema=TARGET_SCHEMA,
    )
