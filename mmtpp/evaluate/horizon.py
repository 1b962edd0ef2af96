"""Long horizons: sampled futures compared with the events that occurred.

The next event alone does not show how good a forecast of the next hour is. From origins within
held-out sequences, futures are sampled up to a horizon and compared with the true events as sets,
by OTD and T-mAP (``core.forecasting.event_matching``).

Axes: K types, R resamples.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.core.forecasting.event_matching import EventSet, RankedEvents, transport_distance
from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.scores import metric_names
from mmtpp.evaluate.scores.estimates import Estimate, mean_estimates, percentile_interval
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import write_bytes

logger = logging.getLogger(__name__)

TOLERANCE = 0.2  # share of the horizon, about as in HoTPP; deleting an event costs half of it
RESAMPLES = 200  # of T-mAP; few, because every resample goes through all ranked events again


@dataclass(frozen=True, slots=True)
class HorizonReport:
    """Metrics of sampled futures.

    Attributes:
        model: Estimates of the model.
        repeat: Estimates of the baseline that repeats the past.
    """

    model: dict[str, Estimate]
    repeat: dict[str, Estimate]


def evaluate_horizon(
    model: EvaluatedModel,
    histories: Sequence[History],
    type_codes: tuple[int, ...],
) -> HorizonReport:
    """Draw futures from origins of the held-out split and compare them with the true events.

    Writes ``futures.parquet`` and ``horizon.json``.

    Args:
        model: The model of the evaluation.
        histories: The whole held-out sequences; their types are indices of ``type_codes``.
        type_codes: Codes of the types that occur.

    Returns:
        Estimates in which every future counts equally.

    Raises:
        DataError: No sequence is longer than the horizon.
    """
    context, settings = model.context, model.context.evaluation
    table = _sample_futures(model)
    write_table(context.path("futures.parquet"), table)
    is_truncated = np.array(
        [len(row) >= settings.max_future_events for row in table["times"].to_pylist()]
    )
    _log_shortcomings(table, is_truncated, histories, context)
    futures = _Futures.from_table(table, histories, type_codes, horizon=settings.horizon)
    drawn, repeat = (
        horizon_estimates(
            forecast,
            futures.true,
            futures.sequence,
            horizon=settings.horizon,
            seconds_per_unit=context.manifest.seconds_per_unit,
            seed=context.seed,
        )
        for forecast in (futures.forecast, futures.repeated)
    )
    share = {
        metric_names.HORIZON_TRUNCATED_FUTURES: (
            is_truncated.astype(np.float64),
            np.ones(len(is_truncated)),
        )
    }
    drawn |= mean_estimates(share, futures.sequence, context.seed)
    tree = {
        source: {name: asdict(estimate) for name, estimate in estimates.items()}
        for source, estimates in (("model", drawn), ("repeat", repeat))
    }
    write_bytes(context.path("horizon.json"), json.dumps(tree, indent=2).encode())
    return HorizonReport(drawn, repeat)


def _sample_futures(model: EvaluatedModel) -> pa.Table:
    """Draw the futures, ``future_actor.FUTURE_SCHEMA``, sorted by sequence, origin and future."""
    tables = list(model.sample_futures())
    order = [("sequence_id", "ascending"), ("origin", "ascending"), ("future", "ascending")]
    if not sum(map(len, tables)):
        raise DataError(
            "no held-out sequence is longer than the horizon",
            where=model.context.store_uri,
            setting=f"evaluation.horizon = {model.context.evaluation.horizon}",
        )
    return pa.concat_tables(tables).sort_by(order)


def _log_shortcomings(
    table: pa.Table,
    is_truncated: NDArray[np.bool_],
    histories: Sequence[History],
    context: EvaluationContext,
) -> None:
    """Warn of truncated futures, and report sequences that are too short for the horizon."""
    settings = context.evaluation
    if is_truncated.any():
        logger.warning(
            "%d of %d futures reached evaluation.max_future_events = %d before the horizon and are "
            "truncated there, which makes OTD, T-mAP and the number of events worse; raise "
            "evaluation.max_future_events",
            is_truncated.sum(),
            len(is_truncated),
            settings.max_future_events,
        )
    num_short = len(histories) - len(set(table["sequence_id"].to_pylist()))
    if num_short and not settings.max_sequences:
        logger.info(
            "%d held-out sequences are shorter than evaluation.horizon = %g and have no futures",
            num_short,
            settings.horizon,
        )


@dataclass(frozen=True, slots=True)
class _Futures:
    """Drawn futures, and for each of them the true events and the repeated past.

    Attributes:
        forecast: Events of each future.
        true: True events after the same origin.
        repeated: Events before the same origin, moved behind it.
        sequence: Index of the sequence of each future, from 0.
    """

    forecast: list[EventSet]
    true: list[EventSet]
    repeated: list[EventSet]
    sequence: NDArray[np.int64]

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        histories: Sequence[History],
        type_codes: Sequence[int],
        *,
        horizon: float,
    ) -> "_Futures":
        """Read the futures of a table of ``future_actor.FUTURE_SCHEMA``."""
        by_name = {history.sequence_id: history for history in histories}
        index_of = {code: index for index, code in enumerate(type_codes)}
        num_types = len(type_codes)
        forecast, true, repeated, sequence = [], [], [], []
        numbers: dict[str, int] = {}
        for row in table.to_pylist():
            history, origin = by_name[row["sequence_id"]], row["origin"]
            types = np.array([index_of[code] for code in row["types"]], dtype=np.int64)
            probabilities = np.array(row["type_probabilities"], dtype=np.float64).reshape(
                -1, num_types
            )
            forecast.append(
                EventSet(np.array(row["times"], dtype=np.float64), types, probabilities)
            )
            true.append(events_after(history, origin, horizon=horizon, num_types=num_types))
            repeated.append(repeat_past(history, origin, horizon=horizon, num_types=num_types))
            sequence.append(numbers.setdefault(row["sequence_id"], len(numbers)))
        return cls(forecast, true, repeated, np.array(sequence))


def horizon_estimates(
    forecast: Sequence[EventSet],
    true: Sequence[EventSet],
    sequence: NDArray[np.int64],
    *,
    horizon: float,
    seconds_per_unit: float,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics of forecast futures, with bootstrap intervals over sequences.

    Args:
        forecast: Forecast events of each future.
        true: True events after the same origins.
        sequence: Index of the sequence of each future, from 0.
        horizon: Length of the futures, in the source's unit.
        seconds_per_unit: Seconds in one unit of the source's times.
        seed: Seed of the bootstrap.
    """
    tolerance = TOLERANCE * horizon
    pairs = list(zip(forecast, true, strict=True))
    ones = np.ones(len(pairs))
    costs = [transport_distance(*pair, delete_cost=tolerance / 2) for pair in pairs]
    errors = [abs(len(ours.times) - len(theirs.times)) for ours, theirs in pairs]
    counts = [len(events.times) for events in true]
    values = {
        metric_names.HORIZON_OTD: (np.array(costs) * seconds_per_unit, ones),
        metric_names.HORIZON_COUNT_ERROR: (np.array(errors, dtype=np.float64), ones),
        metric_names.HORIZON_TRUE_EVENTS: (np.array(counts, np.float64), ones),
    }
    estimates = mean_estimates(values, sequence, seed)
    ranked = [
        RankedEvents.from_pairs(pairs, sequence, type_index, tolerance=tolerance)
        for type_index in range(forecast[0].type_probabilities.shape[1])
    ]
    return estimates | _mean_precisions(ranked, int(sequence.max()) + 1, seed)


def _mean_precisions(
    ranked: Sequence[RankedEvents], num_sequences: int, seed: int
) -> dict[str, Estimate]:
    """T-mAP over the types that occur and over all types; empty where no event occurs.

    Args:
        ranked: Ranked events of each of the K types.
        num_sequences: Number of sequences.
        seed: Seed of the bootstrap.
    """
    probabilities = np.full(num_sequences, 1 / num_sequences)
    draws = np.random.default_rng(seed).multinomial(num_sequences, probabilities, RESAMPLES)
    # the first row has every sequence once
    weights = np.concatenate([np.ones((1, num_sequences)), draws]).astype(np.float64)
    # one resample after the other: all resamples times all events would not fit the memory
    precision = np.array([[events.average_precision(row) for row in weights] for events in ranked])
    num_occurring = (~np.isnan(precision)).sum(axis=0)
    if not num_occurring[0]:
        return {}
    is_defined = num_occurring > 0
    sums = np.nansum(precision, axis=0)[is_defined]
    means = {
        metric_names.HORIZON_T_MAP: sums / num_occurring[is_defined],
        metric_names.HORIZON_T_MAP_ALL_TYPES: sums / len(ranked),
    }
    return {
        name: Estimate(float(mean[0]), *percentile_interval(mean[1:]))
        for name, mean in means.items()
    }


def repeat_past(history: History, origin: int, *, horizon: float, num_types: int) -> EventSet:
    """Forecast that the events of one horizon before the origin occur once more: a baseline."""
    times = history.times[: origin + 1] - history.times[origin] + horizon
    is_inside = times > 0
    types = history.types[: origin + 1][is_inside]
    return EventSet.from_known_types(times[is_inside], types, num_types)


def events_after(history: History, origin: int, *, horizon: float, num_types: int) -> EventSet:
    """The true events after an origin, up to the horizon."""
    times = history.times[origin + 1 :] - history.times[origin]
    is_inside = times <= horizon
    types = history.types[origin + 1 :][is_inside]
    return EventSet.from_known_types(times[is_inside], types, num_types)
