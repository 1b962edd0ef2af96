"""Forecast every event of held-out windows: a Ray Data actor, on a GPU where there is one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.row import Row
from mmtpp.core.seeds import seed_from
from mmtpp.core.tasks import TASKS
from mmtpp.core.timecode import bin_edges, encode_intervals
from mmtpp.core.tokens import Modality
from mmtpp.evaluate.model_actor import AssembledRow, ModelActor, ModelActorSettings
from mmtpp.evaluate.text_metrics import TEXT_SCORES, text_scores
from mmtpp.model.generation import GenerationSettings, TextGenerator
from mmtpp.model.next_event_scores import RowForecaster, RowForecasts, TextScores, TimeForecasts

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
        # nats of the interval's density in the source's unit (NaN for simultaneous events without
        # a clock), and nats of its code, a probability
        ("time_nll", pa.float64()),
        ("code_nll", pa.float64()),
        ("outside", pa.float64()),  # probability off the grid
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


@dataclass(frozen=True, slots=True)
class GenerationTargets:
    """Targets whose texts the model writes, and how.

    Attributes:
        settings: Settings of the written texts.
        share: Share of the targets whose texts are written, 0 to 1.
        seed: Seed of the draw.
    """

    settings: GenerationSettings
    share: float
    seed: int

    def is_drawn(self, sequence_id: str, position: int) -> bool:
        """Whether the text of a target is written; the same in every process."""
        return seed_from("written", self.seed, sequence_id, position) < self.share * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetScorerSettings(ModelActorSettings):
    """Settings of ``TargetScorer``; the questions of its plan are expanded by the grid.

    Attributes:
        type_codes: Codes of the types that occur.
        grid: Grid of the interval forecasts.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        generation: Targets whose texts are written.
    """

    type_codes: tuple[int, ...]
    grid: IntervalGrid
    tick: float
    generation: GenerationTargets


class TargetScorer(ModelActor):
    """Forecasts the targets of windows with questions.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: TargetScorerSettings) -> None:
        super().__init__(settings)
        loaded = self.loaded
        self._codes = np.asarray(settings.type_codes, dtype=np.int16)
        type_ids = loaded.vocabulary.type_ids(settings.type_codes)
        self._forecaster = RowForecaster(loaded.model, loaded.token_ids, type_ids, settings.grid)
        self._tick = settings.tick
        self._num_bytes = settings.assemble.template.time_bytes
        self._generation = settings.generation
        self._generate = TextGenerator(
            loaded.model, loaded.vocabulary, settings.generation.settings
        )

    def process(self, sample: AssembledRow) -> pa.Table:
        """Forecast the targets of one row, ``TARGET_SCHEMA``."""
        forecasts = self._forecaster(sample.row, self.loaded.batcher(sample.row))
        targets = target_table(
            sample, forecasts, self._codes, tick=self._tick, num_bytes=self._num_bytes
        )
        if forecasts.text is None:
            return targets
        return self._with_texts(targets, sample.row, forecasts.text)

    def _with_texts(self, targets: pa.Table, row: Row, scores: TextScores) -> pa.Table:
        """Write the texts of the drawn targets and add them to the table."""
        assert row.questions is not None
        assert row.branches is not None
        is_about_text = row.questions.task == TASKS["text"]
        is_text = (row.branches.task == TASKS["text"]) & (row.modality == Modality.TEXT)
        events = scores.event[row.event_is_target[scores.event]]
        question_of = dict(
            zip(
                row.questions.event[is_about_text].tolist(),
                np.flatnonzero(is_about_text).tolist(),
                strict=True,
            )
        )
        names = zip(
            targets["sequence_id"].to_pylist(), targets["position"].to_pylist(), strict=True
        )
        rows: list[dict[str, object]] = []
        for event, (sequence_id, position) in zip(events.tolist(), names, strict=True):
            if not self._generation.is_drawn(sequence_id, position):
                rows.append({})
                continue
            written = self._generate(
                self.history_batch(row, question_of[event], with_question=True)
            )
            ids = row.input_ids[is_text & (row.event == event)].tolist()
            text = self.loaded.vocabulary.decode_text(ids)
            rows.append({"text": text, "written": written, **text_scores(text, written)})
        fields = [TARGET_SCHEMA.field(name) for name in ("text", "written", *TEXT_SCORES)]
        columns = pa.Table.from_pylist(rows, pa.schema(fields))
        for name in columns.column_names:
            place = targets.schema.get_field_index(name)
            targets = targets.set_column(place, targets.schema.field(name), columns[name])
        return targets


def target_table(
    sample: AssembledRow,
    forecasts: RowForecasts,
    codes: np.ndarray,
    *,
    tick: float,
    num_bytes: int,
) -> pa.Table:
    """Combine the forecasts of a row with the true events.

    Args:
        sample: A row with questions.
        forecasts: Forecasts of the row.
        codes: (K,) codes of the types that occur, in the order of the forecasts.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        num_bytes: Number of bytes of a time code.

    Returns:
        ``TARGET_SCHEMA``, one row for each event that is a target.
    """
    row = sample.row
    assert row.questions is not None
    questioned = np.unique(row.questions.event)
    events = questioned[row.event_is_target[questioned]]
    chosen = np.searchsorted(questioned, events)
    columns = _event_columns(sample, events)
    if forecasts.time is not None:
        true = sample.event_values("interval")[questioned]
        time = _time_forecast_columns(forecasts.time, true, tick=tick, num_bytes=num_bytes)
        columns |= {name: column[chosen] for name, column in time.items()}
    true_index = np.searchsorted(codes, row.event_type[events])
    for prefix, types in (("", forecasts.type), ("joint_", forecasts.joint)):
        if types is not None:
            columns |= type_columns(prefix, types.log_probability[chosen], true_index, codes)
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


def _event_columns(sample: AssembledRow, events: np.ndarray) -> dict[str, object]:
    """The true events, by column."""
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
    forecasts: TimeForecasts, true: np.ndarray, *, tick: float, num_bytes: int
) -> dict[str, np.ndarray]:
    """Interval forecasts of a model and their scores, by column."""
    columns = time_columns(forecasts.interval, true, tick=tick)
    nll = _time_nll(columns["time_nll"], forecasts, true, tick=tick, num_bytes=num_bytes)
    return columns | {
        "greedy": forecasts.greedy,
        "code_nll": forecasts.code_nll,
        "time_nll": nll,
    }


def _time_nll(
    on_grid: np.ndarray,
    forecasts: TimeForecasts,
    true: np.ndarray,
    *,
    tick: float,
    num_bytes: int,
) -> np.ndarray:
    """Nats of the true intervals in the model's whole distribution.

    The probability that the model gives to intervals off the grid counts. A true interval off the
    grid has the density of its code.
    """
    outside, zero = forecasts.interval.outside, forecasts.interval.zero
    nll = on_grid - np.log1p(-outside)
    # without a clock a density is that of events apart: of all that are, on the grid or off it
    apart = np.zeros(len(nll)) if tick else np.log1p(-zero * (1 - outside))
    nll += apart if tick else apart - np.log1p(-zero)
    is_off = np.isposinf(on_grid) & np.isfinite(true)
    low, high = bin_edges(encode_intervals(true[is_off], num_bytes=num_bytes))
    nll[is_off] = forecasts.code_nll[is_off] + np.log(np.maximum(high - low, tick)) + apart[is_off]
    return nll


def time_columns(
    forecasts: IntervalForecasts, true: np.ndarray, *, tick: float
) -> dict[str, np.ndarray]:
    """Interval forecasts and their scores, by column.

    Args:
        forecasts: B forecasts.
        true: (B,) true intervals; NaN where the interval is not known.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
    """
    quantiles = forecasts.quantiles(LEVELS)
    return {
        "mean": forecasts.mean(),
        **{
            f"quantile_{round(100 * level):02d}": quantiles[:, place]
            for place, level in enumerate(LEVELS)
        },
        "crps": forecasts.crps(true),
        "cdf": forecasts.cdf(true),
        "time_nll": forecasts.nll(true, tick=tick),
        "outside": forecasts.outside,
    }


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
