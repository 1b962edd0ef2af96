"""Forecast every event of held-out windows: a Ray Data actor, on a GPU where there is one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.evaluate.actors.expert_scorer import ExpertScorer
from mmtpp.evaluate.actors.target_texts import GenerationTargets, TargetTexts
from mmtpp.evaluate.scores.targets import target_table
from mmtpp.expert.gated_expert import load_gated_expert
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.model.row_forecaster import RowForecaster


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
        self._expert: ExpertScorer | None = None
        if settings.location.expert_uri:
            self._expert = ExpertScorer(
                load_gated_expert(settings.location.expert_uri),
                settings.sample_settings.store,
                settings.type_codes,
                settings.grid,
            )
        self._tick = settings.tick
        self._num_bytes = settings.sample_settings.template.time_bytes
        self._texts = TargetTexts(
            loaded.model, loaded.vocabulary, settings.generation, loaded.batcher
        )

    def process(self, sample: AssembledRow) -> pa.Table:
        """Forecast the targets of one row, ``targets.TARGET_SCHEMA``."""
        forecasts = self._forecaster(sample.row, self.loaded.batcher(sample.row))
        targets = target_table(
            sample,
            forecasts,
            self._codes,
            tick=self._tick,
            num_bytes=self._num_bytes,
            expert=self._expert(sample) if self._expert is not None else None,
        )
        return targets if forecasts.text is None else self._texts.add_to(targets, sample.row)
