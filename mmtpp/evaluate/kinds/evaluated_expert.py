"""Forecasts and futures of a temporal expert for held-out sequences, in Ray tasks.

Axes: N targets, K types.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.kinds.expert_horizon import sample_sequence_futures
from mmtpp.evaluate.scores.density_targets import density_columns
from mmtpp.evaluate.scores.targets import complete_targets
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.expert_forecasts import ExpertForecasts, density_grid
from mmtpp.expert.expert_futures import FutureSettings
from mmtpp.expert.next_events import NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.runtime.block_tasks import group_sequences, map_blocks

EVENTS_PER_TASK = 20_000  # about, in whole sequences


@dataclass(frozen=True, slots=True)
class ForecastAxes:
    """What every task needs besides sequences.

    Attributes:
        grid: Grid of the interval forecasts.
        codes: (K,) codes of the types that the expert knows.
    """

    grid: IntervalGrid
    codes: np.ndarray


class EvaluatedExpert(EvaluatedModel):
    """Forecasts of a temporal expert, which reads whole sequences in Ray tasks."""

    def _target_tables(self) -> Iterable[pa.Table]:
        codes = self.trained_tasks.type_codes
        grid = density_grid(self.trained_tasks.interval_range)
        return map_blocks(
            forecast_sequences,
            self._expert,
            self._blocks(),
            ForecastAxes(grid, np.asarray(codes)),
            machine_labels=self.context.task_labels,
            title="evaluate: forecasts",
        )

    def sample_futures(self) -> Iterable[pa.Table]:
        """Futures of all origins, ``future_actor.FUTURE_SCHEMA``, in any order."""
        evaluation = self.context.evaluation
        return map_blocks(
            sample_sequence_futures,
            self._expert,
            self._blocks(),
            FutureSettings(
                evaluation.num_futures, evaluation.horizon, evaluation.max_future_events
            ),
            self.trained_tasks.type_codes,
            evaluation.origins_per_sequence,
            self.context.seed,
            machine_labels=self.context.task_labels,
            title="evaluate: futures",
        )

    def facts(self) -> dict[str, str]:
        """What the report says about the model."""
        return {"model": self.context.location.model_uri}

    @cached_property
    def _expert(self) -> Expert:
        return load_expert(self.context.location.model_uri)

    @cached_property
    def _sequences(self) -> list[ScoredSequence]:
        """Sequences with a target; empty if no event is a target."""
        codes = self.trained_tasks.type_codes
        return read_sequences(
            SequenceSettings(
                self.context.held_out_sample_settings,
                codes,
                self._expert.texts,
                self._expert.reads_images,
            )
        )

    def _blocks(self) -> list[list[ScoredSequence]]:
        num_events = map(len, self._sequences)
        return group_sequences(self._sequences, num_events, events_per_block=EVENTS_PER_TASK)


def forecast_sequences(
    expert: Expert, sequences: Sequence[ScoredSequence], settings: ForecastAxes
) -> pa.Table:
    """Forecast the targets of sequences, ``targets.TARGET_SCHEMA``.

    Args:
        expert: The expert.
        sequences: Whole sequences.
        settings: Grid and types of the forecasts.
    """
    events = NextEvents.from_sequences(expert.memory, sequences, tick=expert.tick)
    forecasts = density_columns(
        ExpertForecasts.after(expert.networks, events.inputs),
        events.next_intervals,
        events.next_types.numpy(),
        grid=settings.grid,
        codes=settings.codes,
    )
    return complete_targets(_event_columns(sequences, settings.codes) | forecasts, len(events))


def _event_columns(sequences: Sequence[ScoredSequence], codes: np.ndarray) -> dict[str, object]:
    """The true events, by column."""
    columns: dict[str, list[np.ndarray]] = {}
    for sequence in sequences:
        position = np.flatnonzero(sequence.is_target)
        times, types = sequence.past.times, codes[sequence.past.types]
        intervals = np.diff(times, prepend=times[0])
        values = {
            "position": position,
            "context": position,
            "time": times[position],
            "interval": intervals[position],
            "previous_interval": intervals[position - 1],
            "type": types[position],
            "previous_type": types[position - 1],
        }
        for name, column in values.items():
            columns.setdefault(name, []).append(column)
    names = [sequence.sequence_id for sequence in sequences]
    counts = [int(sequence.is_target.sum()) for sequence in sequences]
    return {
        "sequence_id": np.repeat(np.array(names, dtype=object), counts),
        **{name: np.concatenate(parts) for name, parts in columns.items()},
    }
