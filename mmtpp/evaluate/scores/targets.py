"""The table of forecasts: one row for each event that is forecast, with its scores."""

import numpy as np
import pyarrow as pa

from mmtpp.core.forecasting.gate import IntervalLikelihoods
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts
from mmtpp.core.representation.timecode import bin_edges, encode_intervals
from mmtpp.evaluate.gated_forecasts import GatedForecasts
from mmtpp.evaluate.scores.text_metrics import TEXT_SCORES
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.model.row_forecaster import RowForecasts, TimeForecasts

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of a forecast interval."""
TARGET_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("position", pa.int32()),  # index within the sequence, from 0
        ("context", pa.int32()),  # number of events before it in the window
        # times in the source's unit
        ("time", pa.float64()),
        ("interval", pa.float64()),
        ("previous_interval", pa.float64()),
        ("type", pa.int16()),
        ("previous_type", pa.int16()),
        # forecast of the interval: null where the model does not forecast times
        ("mean", pa.float64()),
        ("greedy", pa.float64()),
        *[(f"quantile_{round(100 * level):02d}", pa.float64()) for level in LEVELS],
        ("crps", pa.float64()),
        ("cdf", pa.float64()),  # at the true interval
        # probabilities of an interval below and up to the tick of the true one, off-grid
        # intervals included in the whole
        ("cdf_low", pa.float64()),
        ("cdf_high", pa.float64()),
        # nats of the interval's density in the source's unit (NaN for simultaneous events without
        # a clock), and nats of its code, a probability
        ("time_nll", pa.float64()),
        ("code_nll", pa.float64()),
        ("outside", pa.float64()),  # probability off the grid
        ("simultaneous", pa.float64()),  # probability of the interval 0
        # forecast of the type from the history alone
        ("predicted_type", pa.int16()),
        ("type_nll", pa.float64()),  # nats
        ("type_rank", pa.int16()),  # rank of the true type, from 0
        # forecast of the type from the history and the true time
        ("joint_predicted_type", pa.int16()),
        ("joint_type_nll", pa.float64()),  # nats
        # likelihood of the text, given time and image
        ("text_nll", pa.float64()),  # nats
        ("text_tokens", pa.int32()),
        # true text and written text: null except for the targets whose texts were written
        ("text", pa.string()),
        ("written", pa.string()),
        *[(name, pa.float64()) for name in TEXT_SCORES],
    ]
)


def target_table(
    sample: AssembledRow,
    forecasts: RowForecasts,
    codes: np.ndarray,
    *,
    tick: float,
    num_bytes: int,
    expert: GatedForecasts | None = None,
) -> pa.Table:
    """Combine the forecasts of a row with the true events.

    Args:
        sample: A row with questions.
        forecasts: Forecasts of the row.
        codes: (K,) codes of the types that occur, in the order of the forecasts.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        num_bytes: Number of bytes of a time code.
        expert: Share of an expert in the forecasts; None for the language model alone.

    Returns:
        ``TARGET_SCHEMA``, one row for each event that is a target.
    """
    row = sample.row
    assert row.questions is not None
    questioned = np.unique(row.questions.event)
    events = questioned[row.event_is_target[questioned]]
    chosen = np.searchsorted(questioned, events)
    columns = event_columns(sample, events)
    if forecasts.time is not None:
        true = sample.event_values("interval")[questioned]
        nll = _time_nll(forecasts.time, true, tick=tick, num_bytes=num_bytes)
        if expert is None:
            time = _time_forecast_columns(nll, forecasts.time, true, tick=tick)
        else:
            time = _mixed_time_columns(nll, forecasts.time, expert, true, tick=tick)
        columns |= {name: column[chosen] for name, column in time.items()}
    true_index = np.searchsorted(codes, row.event_type[events])
    for prefix, log_probability in _type_forecasts(forecasts, expert).items():
        columns |= type_columns(prefix, log_probability[chosen], true_index, codes)
    if forecasts.text is not None:
        columns |= {
            "text_nll": forecasts.text.nll[chosen],
            "text_tokens": forecasts.text.num_tokens[chosen],
        }
    return complete_targets(columns, len(events))


def complete_targets(columns: dict[str, object], size: int) -> pa.Table:
    """Make a table of ``TARGET_SCHEMA``; missing columns are null.

    Args:
        columns: Columns by name.
        size: Number of rows.
    """
    table = {
        field.name: pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(size, field.type)
        for field in TARGET_SCHEMA
    }
    return pa.table(table, schema=TARGET_SCHEMA)


def event_columns(sample: AssembledRow, events: np.ndarray) -> dict[str, object]:
    """The true events, by column of ``TARGET_SCHEMA``.

    Args:
        sample: Row of the events.
        events: (N,) indices of events of the row.
    """
    segment = sample.event_values("segment")
    starts = np.searchsorted(segment, segment[events])
    names = ("position", "time", "interval", "previous_interval", "previous_type")
    return {
        "sequence_id": sample.sequence_ids.take(pa.array(segment[events])),
        "context": events - starts,
        **{name: sample.event_values(name)[events] for name in names},
        "type": sample.row.event_type[events],
    }


def _time_forecast_columns(
    nll: np.ndarray, forecasts: TimeForecasts, true: np.ndarray, *, tick: float
) -> dict[str, np.ndarray]:
    """Interval forecasts of a model and their scores, by column."""
    return time_columns(forecasts.interval, true, tick=tick) | {
        "greedy": forecasts.greedy,
        "code_nll": forecasts.code_nll,
        "time_nll": nll,
    }


def _mixed_time_columns(
    nll: np.ndarray,
    forecasts: TimeForecasts,
    expert: GatedForecasts,
    true: np.ndarray,
    *,
    tick: float,
) -> dict[str, np.ndarray]:
    """Interval forecasts of a mixture and their scores, by column. A mixture decodes no bytes."""
    mixed = expert.mix_intervals(forecasts.interval)
    likelihoods = IntervalLikelihoods(nll, simultaneous_probability(forecasts.interval), tick)
    return time_columns(mixed, true, tick=tick) | {
        "time_nll": expert.mix_likelihoods(likelihoods).nll
    }


def _type_forecasts(
    forecasts: RowForecasts, expert: GatedForecasts | None
) -> dict[str, np.ndarray]:
    """Log probabilities of the types of all events with questions, by prefix of their columns."""
    types, joint = (
        None if part is None else part.log_probability for part in (forecasts.type, forecasts.joint)
    )
    if expert is not None:
        if types is not None:
            # a language model without the task joint has one forecast of the type
            joint = expert.mix_joint_types(types if joint is None else joint)
            types = expert.mix_types(types)
        elif joint is not None:
            joint = expert.mix_joint_types(joint)
    by_prefix = {"": types, "joint_": joint}
    return {prefix: values for prefix, values in by_prefix.items() if values is not None}


def _time_nll(
    forecasts: TimeForecasts, true: np.ndarray, *, tick: float, num_bytes: int
) -> np.ndarray:
    """Negative log-likelihood of the true intervals, in nats.

    The model's distribution includes the probability of intervals off the grid. A true interval off
    the grid has the density of its code.
    """
    outside, zero = forecasts.interval.outside, forecasts.interval.zero
    on_grid = forecasts.interval.nll(true, tick=tick)
    nll = on_grid - np.log1p(-outside)
    # without a clock, a density is conditional on an interval above 0, on the grid or off it
    apart = np.zeros(len(nll)) if tick else np.log1p(-zero * (1 - outside))
    nll += apart if tick else apart - np.log1p(-zero)
    is_off = np.isposinf(on_grid) & np.isfinite(true)
    low, high = bin_edges(encode_intervals(true[is_off], num_bytes=num_bytes))
    nll[is_off] = forecasts.code_nll[is_off] + np.log(np.maximum(high - low, tick)) + apart[is_off]
    return nll


def time_columns(
    forecasts: IntervalForecasts, true: np.ndarray, *, tick: float
) -> dict[str, np.ndarray]:
    """Interval forecasts and their scores but the likelihood, by column.

    Args:
        forecasts: B forecasts.
        true: (B,) true intervals; NaN where the interval is not known.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
    """
    quantiles = forecasts.quantiles(LEVELS)
    return {
        "mean": forecasts.mean(),
        **{
            f"quantile_{round(100 * level):02d}": quantiles[:, index]
            for index, level in enumerate(LEVELS)
        },
        "crps": forecasts.crps(true),
        "cdf": forecasts.cdf(true),
        **_ends_of_tick(forecasts, true, tick=tick),
        "outside": forecasts.outside,
        "simultaneous": simultaneous_probability(forecasts),
    }


def scored_time_columns(
    forecasts: IntervalForecasts, true: np.ndarray, *, tick: float
) -> dict[str, np.ndarray]:
    """``time_columns``, and the likelihood on the forecasts' grid."""
    columns = time_columns(forecasts, true, tick=tick)
    return columns | {"time_nll": forecasts.nll(true, tick=tick)}


def _ends_of_tick(
    forecasts: IntervalForecasts, true: np.ndarray, *, tick: float
) -> dict[str, np.ndarray]:
    """The probabilities at both ends of the ticks of the true intervals, by column.

    An interval longer than the grid is anywhere in the probability off the grid.
    """
    inside = 1 - forecasts.outside
    low = np.where(true > 0, forecasts.cdf(true - tick / 2), 0.0) * inside
    high = forecasts.cdf(true + tick / 2) * inside
    is_off = true > forecasts.edges[-1]
    return {
        "cdf_low": np.where(is_off, inside, low),
        "cdf_high": np.where(is_off, 1.0, high),
    }


def simultaneous_probability(forecasts: IntervalForecasts) -> np.ndarray:
    """(B,) probability that the event is simultaneous, off-grid intervals included in the whole."""
    return forecasts.zero * (1 - forecasts.outside)


def type_columns(
    prefix: str, log_probability: np.ndarray, true: np.ndarray, codes: np.ndarray
) -> dict[str, np.ndarray]:
    """Type forecasts and their scores, by column.

    Args:
        prefix: ``joint_`` where the time is known, otherwise an empty text.
        log_probability: (B, K) log-probabilities.
        true: (B,) index of the true type among the K types.
        codes: (K,) codes of the types.
    """
    of_true = log_probability[np.arange(len(true)), true]
    columns = {
        f"{prefix}predicted_type": codes[log_probability.argmax(axis=1)],
        f"{prefix}type_nll": -of_true,
    }
    if not prefix:
        # of equally likely types the first one is the prediction
        is_before = np.arange(log_probability.shape[1]) < true[:, None]
        is_equal = log_probability == of_true[:, None]
        is_ranked_higher = (log_probability > of_true[:, None]) | (is_equal & is_before)
        columns["type_rank"] = is_ranked_higher.sum(axis=1)
    return columns
