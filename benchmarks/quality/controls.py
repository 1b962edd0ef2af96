"""Control baselines, which are given the lengths of texts that the temporal expert sees.

``marginal by text length`` forecasts the next interval and type by their training distribution
after events with the same type and about the same length of text. It says how much these two
properties of the last event are worth without any model.

Axes: E events of a sequence, C contexts, K types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.point_processes.history import History
from mmtpp.data.samples.event_span import usable_events
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.baselines.classical import interval_range_of
from mmtpp.evaluate.baselines.marginal import Marginal
from mmtpp.evaluate.scores.targets import complete_targets, scored_time_columns, type_columns

BY_TEXT_LENGTH = "marginal by text length"
LENGTH_EDGES = (1, 5, 10, 20, 40, 80, 160)  # tokens; bin 0 is an empty text
MIN_EVENTS = 30  # a context with fewer training events is forecast by the marginal of all events


@dataclass(frozen=True, slots=True)
class TextHistory:
    """A sequence of E events with the lengths of its texts.

    Attributes:
        history: Times and types.
        text_lengths: (E,) in tokens.
    """

    history: History
    text_lengths: NDArray[np.int64]

    def contexts(self, num_types: int) -> NDArray[np.int64]:
        """(E - 1,) index of the context before every event but the first, 0 to C - 1."""
        bins = np.digitize(self.text_lengths[:-1], LENGTH_EDGES)
        return bins * num_types + self.history.types[:-1]


def read_text_histories(settings: SampleSettings, type_codes: Sequence[int]) -> list[TextHistory]:
    """Read the sequences of a split that have a target, in order of their ids.

    Args:
        settings: Settings of the split.
        type_codes: Codes of the types that occur; types are indices of them.
    """
    reader = StoreReader(settings.store)
    index_of = np.zeros(max(type_codes) + 1, dtype=np.int64)
    index_of[list(type_codes)] = np.arange(len(type_codes))
    sequences: list[TextHistory] = []
    for sequence in reader.sequences(reader.files()):
        span = usable_events(sequence, settings.split, settings.time_range)
        if span.has_targets and len(span) > 1:
            chosen = slice(span.first, span.end)
            types = index_of[sequence.events.types[chosen]]
            history = History(
                sequence.sequence_id, sequence.times[chosen], types, settings.store.tick
            )
            lengths = np.diff(sequence.events.text_offsets)[chosen]
            sequences.append(TextHistory(history, lengths))
    sequences.sort(key=lambda sequence: sequence.history.sequence_id)
    return sequences[: settings.max_sequences or None]


@dataclass(frozen=True, slots=True)
class ContextMarginal:
    """One marginal for every context.

    Attributes:
        grid: Grid of the interval forecasts.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        num_types: Number of types that occur, K.
        overall: Marginal of all training events, for contexts with too few of them.
        by_context: Marginals of the other contexts, by their index.
    """

    grid: IntervalGrid
    tick: float
    num_types: int
    overall: Marginal
    by_context: dict[int, Marginal]

    @classmethod
    def fit(
        cls, train: Sequence[TextHistory], grid: IntervalGrid, num_types: int, *, tick: float
    ) -> "ContextMarginal":
        """Fit the marginals to training sequences.

        Args:
            train: Training sequences of at least two events; at least one sequence.
            grid: Grid of the forecasts.
            num_types: Number of types that occur, K.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
        """
        overall = Marginal.fit([text.history for text in train], grid, num_types, tick=tick)
        pairs: dict[int, list[History]] = {}
        for text in train:
            history, contexts = text.history, text.contexts(num_types).tolist()
            for place, context in enumerate(contexts):
                pair = slice(place, place + 2)
                pairs.setdefault(context, []).append(
                    replace(history, times=history.times[pair], types=history.types[pair])
                )
        by_context = {
            context: Marginal.fit(events, grid, num_types, tick=tick)
            for context, events in pairs.items()
            if len(events) >= MIN_EVENTS
        }
        return cls(grid, tick, num_types, overall, by_context)

    def forecast(self, text: TextHistory) -> pa.Table:
        """Forecast all events of a sequence but the first, ``TARGET_SCHEMA``."""
        history = text.history
        contexts = text.contexts(self.num_types).tolist()
        chosen = [self.by_context.get(context, self.overall) for context in contexts]
        parts = []
        for rows in history.chunks():
            zero = np.array([model.distribution.zero for model in chosen[rows]])
            mass = np.stack([model.distribution.mass for model in chosen[rows]])
            forecasts = IntervalForecasts(self.grid, zero, mass, np.zeros(len(zero)))
            parts.append(scored_time_columns(forecasts, history.intervals[rows], tick=self.tick))
        columns: dict[str, object] = {
            "sequence_id": [history.sequence_id] * len(chosen),
            "position": np.arange(1, len(chosen) + 1),
            "time": history.times[1:],
            "interval": history.intervals,
            "type": history.types[1:],
            **{key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
        }
        type_logs = np.stack([model.distribution.type_logs for model in chosen])
        for prefix in ("", "joint_"):
            columns |= type_columns(prefix, type_logs, history.types[1:], np.arange(self.num_types))
        return complete_targets(columns, len(chosen))


def forecast_by_text_length(
    train: SampleSettings, test: SampleSettings, type_codes: Sequence[int]
) -> pa.Table:
    """Fit ``marginal by text length`` and forecast every event of the test split but the first.

    Args:
        train: Settings of the training split.
        test: Settings of the test split.
        type_codes: Codes of the types that occur.

    Returns:
        ``TARGET_SCHEMA``.
    """
    tick, num_types = train.store.tick, len(type_codes)
    fitted, held_out = (read_text_histories(part, type_codes) for part in (train, test))
    span = interval_range_of([text.history for text in (*fitted, *held_out)], tick=tick)
    assert span is not None
    model = ContextMarginal.fit(fitted, span.grid(num_bytes=2), num_types, tick=tick)
    return pa.concat_tables([model.forecast(text) for text in held_out])
