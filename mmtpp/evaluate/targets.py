"""Forecasting every event of held-out windows: a Ray Data actor, on a GPU when there is one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.row import Row
from mmtpp.core.seeds import seed_from
from mmtpp.core.tasks import TASKS
from mmtpp.core.timecode import bin_edges, encode_intervals
from mmtpp.core.tokens import Modality
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.evaluate.text_metrics import TEXT_SCORES, text_scores
from mmtpp.model.generation import TextWriter, WritingSettings
from mmtpp.model.loaded import LoadedModel, ModelSource
from mmtpp.model.next_event_scores import Forecaster, RowForecasts, TextScores, TimeForecasts

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
TARGET_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("position", pa.int32()),  # within the sequence, from 0
        ("context", pa.int32()),  # events of the window before it
        # times in the source's unit
        ("time", pa.float64()),
        ("interval", pa.float64()),
        ("previous_interval", pa.float64()),
        ("type", pa.int16()),
        ("previous_type", pa.int16()),
        # when: null where it is not asked
        ("mean", pa.float64()),
        ("greedy", pa.float64()),
        *[(f"quantile_{round(100 * level):02d}", pa.float64()) for level in LEVELS],
        ("crps", pa.float64()),
        ("cdf", pa.float64()),  # of the true interval
        # nats of the interval's density in the source's unit (NaN for simultaneous events without
        # a clock), and of its code, a probability
        ("time_nll", pa.float64()),
        ("code_nll", pa.float64()),
        ("outside", pa.float64()),  # probability off the grid
        # which type, from the history alone
        ("predicted_type", pa.int16()),
        ("type_nll", pa.float64()),  # nats
        ("type_rank", pa.int16()),  # of the true type, from 0
        # which type, when the time is known
        ("joint_predicted_type", pa.int16()),
        ("joint_type_nll", pa.float64()),  # nats
        # the text, when time and image are known
        ("text_nll", pa.float64()),  # nats
        ("text_tokens", pa.int32()),
        # null but for the targets whose texts were written
        ("text", pa.string()),
        ("written", pa.string()),
        *[(name, pa.float64()) for name in TEXT_SCORES],
    ]
)


@dataclass(frozen=True, slots=True)
class Writing:
    """Which texts are written, and how.

    Attributes:
        settings: of the writer.
        share: of the targets, 0 to 1.
        seed: of the draw.
    """

    settings: WritingSettings
    share: float
    seed: int

    def draws(self, sequence_id: str, position: int) -> bool:
        """Whether the text of a target is written; the same whoever asks."""
        return seed_from("written", self.seed, sequence_id, position) < self.share * 2**64


def writing_settings(config: RunConfig) -> WritingSettings:
    """How texts are written."""
    return WritingSettings(**config.generation.model_dump())


class TargetScorer:
    """Assembles windows with questions and forecasts their targets.

    Args:
        settings: what the plan was made with; its questions are expanded by the grid.
        source: of the model.
        type_codes: types that occur.
        grid: of the interval forecasts.
        tick: tick of the clock, in the source's time unit; 0 where the times have none.
        writing: of texts.
    """

    def __init__(
        self,
        settings: AssembleSettings,
        source: ModelSource,
        type_codes: list[int],
        grid: IntervalGrid,
        tick: float,
        writing: Writing,
    ) -> None:
        self._loaded = loaded = LoadedModel.of(source, image_px=settings.image_px)
        self._assembler = Assembler(settings, loaded.token_ids)
        self._codes = np.asarray(type_codes, dtype=np.int16)
        self._forecaster = Forecaster(
            loaded.model, loaded.token_ids, loaded.vocabulary.type_ids(type_codes), grid
        )
        self._tick = tick
        self._num_bytes = settings.template.time_bytes
        self._image_px = settings.image_px
        self._writing = writing
        self._write = TextWriter(loaded.model, loaded.vocabulary, writing.settings)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Forecast the targets of samples, ``TARGET_SCHEMA``."""
        assembled = self._assembler(samples)
        return pa.concat_tables([self._score(assembled, index) for index in range(len(assembled))])

    def _score(self, assembled: pa.Table, index: int) -> pa.Table:
        row = row_from_arrow(assembled, index, image_px=self._image_px)
        forecasts = self._forecaster(row, self._loaded.batcher(row))
        found = target_table(
            row,
            assembled.slice(index, 1),
            forecasts,
            self._codes,
            tick=self._tick,
            num_bytes=self._num_bytes,
        )
        return found if forecasts.text is None else self._with_texts(found, row, forecasts.text)

    def _with_texts(self, targets: pa.Table, row: Row, scores: TextScores) -> pa.Table:
        """The targets of a row with the texts of those that were drawn."""
        assert row.questions is not None
        assert row.branches is not None
        asked = row.questions.task == TASKS["text"]
        is_text = (row.branches.task == TASKS["text"]) & (row.modality == Modality.TEXT)
        kept = scores.event[row.event_is_target[scores.event]]
        question_of = dict(
            zip(row.questions.event[asked].tolist(), np.flatnonzero(asked).tolist(), strict=True)
        )
        names = zip(
            targets["sequence_id"].to_pylist(), targets["position"].to_pylist(), strict=True
        )
        rows: list[dict[str, object]] = []
        for event, (sequence_id, position) in zip(kept.tolist(), names, strict=True):
            if not self._writing.draws(sequence_id, position):
                rows.append({})
                continue
            plain = row.before_question(
                question_of[event],
                image_pad=self._loaded.token_ids.image_pad,
                with_question=True,
            )
            written = self._write(self._loaded.batcher(plain))
            ids = row.input_ids[is_text & (row.event == event)].tolist()
            text = self._loaded.vocabulary.decode_text(ids)
            rows.append({"text": text, "written": written, **text_scores(text, written)})
        fields = [TARGET_SCHEMA.field(name) for name in ("text", "written", *TEXT_SCORES)]
        columns = pa.Table.from_pylist(rows, pa.schema(fields))
        for name in columns.column_names:
            place = targets.schema.get_field_index(name)
            targets = targets.set_column(place, targets.schema.field(name), columns[name])
        return targets


def target_table(
    row: Row,
    assembled: pa.Table,
    forecasts: RowForecasts,
    codes: np.ndarray,
    *,
    tick: float,
    num_bytes: int,
) -> pa.Table:
    """Forecasts beside what happened.

    Args:
        row: with questions.
        assembled: the row as it was assembled, one row of ``assemble.ROW_SCHEMA``.
        forecasts: of the row.
        codes: (K,) types that occur, in the order of the forecasts.
        tick: tick of the clock, in the source's time unit; 0 where the times have none.
        num_bytes: of the time code.

    Returns:
        ``TARGET_SCHEMA``, one row an event that is a target.
    """

    def values(name: str) -> np.ndarray:
        return assembled[f"event_{name}"][0].values.to_numpy(zero_copy_only=False)

    assert row.questions is not None
    asked = np.unique(row.questions.event)
    events = asked[row.event_is_target[asked]]
    kept = np.searchsorted(asked, events)
    segment = values("segment")
    starts = np.searchsorted(segment, segment[events])
    columns: dict[str, object] = {
        "sequence_id": assembled["sequences"][0].values.take(pa.array(segment[events])),
        "context": events - starts,
        **{
            name: values(name)[events]
            for name in ("position", "time", "interval", "previous_interval", "previous_type")
        },
        "type": row.event_type[events],
    }
    if forecasts.time is not None:
        true = values("interval")[asked]
        found = time_columns(forecasts.time.interval, true, tick=tick)
        found |= {
            "greedy": forecasts.time.greedy,
            "code_nll": forecasts.time.code_nll,
            "time_nll": _time_nll(
                found["time_nll"], forecasts.time, true, tick=tick, num_bytes=num_bytes
            ),
        }
        columns |= {name: column[kept] for name, column in found.items()}
    place_of = np.searchsorted(codes, row.event_type[events])
    for prefix, answers in (("", forecasts.type), ("joint_", forecasts.joint)):
        if answers is not None:
            columns |= type_columns(prefix, answers.log_probability[kept], place_of, codes)
    if forecasts.text is not None:
        columns |= {
            "text_nll": forecasts.text.nll[kept],
            "text_tokens": forecasts.text.num_tokens[kept],
        }
    table = {
        field.name: pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(len(events), field.type)
        for field in TARGET_SCHEMA
    }
    return pa.table(table, schema=TARGET_SCHEMA)


def _time_nll(
    on_grid: np.ndarray,
    forecasts: TimeForecasts,
    true: np.ndarray,
    *,
    tick: float,
    num_bytes: int,
) -> np.ndarray:
    """Nats of the true intervals in the model's own distribution, whole: what it gave to intervals
    off the grid counts, and an interval there has the density of its code."""
    outside, zero = forecasts.interval.outside, forecasts.interval.zero
    nll = on_grid - np.log1p(-outside)
    # without a clock a density is that of events apart: of all that are, on the grid or off it
    apart = np.zeros(len(nll)) if tick else np.log1p(-zero * (1 - outside))
    nll += apart if tick else apart - np.log1p(-zero)
    off = np.isposinf(on_grid) & np.isfinite(true)
    low, high = bin_edges(encode_intervals(true[off], num_bytes=num_bytes))
    nll[off] = forecasts.code_nll[off] + np.log(np.maximum(high - low, tick)) + apart[off]
    return nll


def time_columns(
    forecasts: IntervalForecasts, true: np.ndarray, *, tick: float
) -> dict[str, np.ndarray]:
    """Interval forecasts and their scores, by column.

    Args:
        forecasts: B of them.
        true: (B,) intervals; NaN where it is not known.
        tick: tick of the clock, in the source's time unit; 0 where the times have none.
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
        prefix: ``joint_`` when the time is known.
        log_probability: (B, K).
        true: (B,) index of the true type among the K.
        codes: (K,) types.
    """
    own = log_probability[np.arange(len(true)), true]
    columns = {
        f"{prefix}predicted_type": codes[log_probability.argmax(axis=1)],
        f"{prefix}type_nll": -own,
    }
    if not prefix:
        before = np.arange(log_probability.shape[1]) < true[:, None]
        ahead = (log_probability > own[:, None]) | ((log_probability == own[:, None]) & before)
        columns["type_rank"] = ahead.sum(axis=1)  # of equals the first is predicted
    return columns
