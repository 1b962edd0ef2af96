"""Actors that score targets and draw futures with a model of soft tokens."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.seeds import seed_from
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.evaluate.actors.future_actor import FUTURE_SCHEMA, future_rows
from mmtpp.evaluate.scores.density_targets import density_columns
from mmtpp.evaluate.scores.targets import complete_targets, event_columns
from mmtpp.expert.expert_futures import FutureSettings, sample_futures
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActorSettings
from mmtpp.inference.soft_actor import SoftActor


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftTargetScorerSettings(ModelActorSettings):
    """Settings of ``SoftTargetScorer``.

    Attributes:
        grid: Grid of the interval forecasts.
    """

    grid: IntervalGrid


class SoftTargetScorer(SoftActor):
    """Forecasts the targets of windows of soft tokens.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: SoftTargetScorerSettings) -> None:
        super().__init__(settings)
        self._grid = settings.grid

    def process(self, sample: AssembledRow) -> pa.Table:
        """Forecast the targets of one row, ``targets.TARGET_SCHEMA``."""
        row = sample.row
        events = row.event[row.label_positions()]
        chosen = np.flatnonzero(row.event_is_target[events])
        forecasts = self.distributions.forecast_labels(self.loaded.batcher(row))
        events = events[chosen]
        tick = self.distributions.model.settings.tick
        intervals = round_to_ticks(sample.event_values("interval")[events], tick)
        scores = density_columns(
            forecasts.select(torch.from_numpy(chosen)),
            torch.from_numpy(intervals.astype(np.float32)),
            np.searchsorted(self.codes, row.event_type[events]),
            grid=self._grid,
            codes=self.codes,
        )
        return complete_targets(event_columns(sample, events) | scores, len(events))


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftFutureActorSettings(ModelActorSettings):
    """Settings of ``SoftFutureActor``.

    Attributes:
        futures: Number and length of the futures of each origin.
        seed: Seed of the draws, combined with the origin.
    """

    futures: FutureSettings
    seed: int


class SoftFutureActor(SoftActor):
    """Draws futures that may follow the windows of a plan.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: SoftFutureActorSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def process(self, sample: AssembledRow) -> pa.Table:
        """Draw the futures of one origin, ``future_actor.FUTURE_SCHEMA``."""
        wanted = self._settings.futures
        name = sample.sequence_ids[0].as_py()
        origin = int(sample.event_values("position")[-1])
        rng = np.random.default_rng(seed_from("horizon", self._settings.seed, name, origin))
        rollout = self.begin_rollout(sample, wanted.num_futures)
        [futures] = sample_futures(rollout, wanted, [rng])
        return pa.Table.from_pylist(future_rows(futures, self.codes, name, origin), FUTURE_SCHEMA)
