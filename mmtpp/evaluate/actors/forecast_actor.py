"""Forecast every event of held-out windows: a Ray Data actor, on a GPU where there is one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import TASKS
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.seeds import seed_from
from mmtpp.evaluate.actors.gated_targets import ExpertScorer
from mmtpp.evaluate.scores.targets import TARGET_SCHEMA, target_table
from mmtpp.evaluate.scores.text_metrics import TEXT_SCORES, text_scores
from mmtpp.expert.gated_expert import load_gated_expert
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.model.generation import GenerationSettings, TextGenerator
from mmtpp.model.row_forecaster import RowForecaster, TextLikelihoods


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
        self._expert: ExpertScorer | None = None
        if settings.model.expert_uri:
            self._expert = ExpertScorer(
                load_gated_expert(settings.model.expert_uri),
                settings.sample_settings.store,
                settings.type_codes,
                settings.grid,
            )
        self._tick = settings.tick
        self._num_bytes = settings.sample_settings.template.time_bytes
        self._generation = settings.generation
        self._generate = TextGenerator(
            loaded.model, loaded.vocabulary, settings.generation.settings
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
        if forecasts.text is None:
            return targets
        return self._with_texts(targets, sample.row, forecasts.text)

    def _with_texts(self, targets: pa.Table, row: PackedRow, scores: TextLikelihoods) -> pa.Table:
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
            index = targets.schema.get_field_index(name)
            targets = targets.set_column(index, targets.schema.field(name), columns[name])
        return targets
