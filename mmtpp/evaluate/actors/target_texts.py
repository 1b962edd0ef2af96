"""Texts that a model writes for some of the targets, beside the true ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import TASKS
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.seeds import seed_from
from mmtpp.evaluate.scores.targets import TARGET_SCHEMA
from mmtpp.evaluate.scores.text_metrics import TEXT_SCORES, text_scores
from mmtpp.model.batch import Batch
from mmtpp.model.decoding.generation import GenerationSettings, TextGenerator
from mmtpp.model.event_model import EventModel
from mmtpp.model.tokens.vocabulary import Vocabulary

_FIELDS = [TARGET_SCHEMA.field(name) for name in ("text", "written", *TEXT_SCORES)]


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


class TargetTexts:
    """Writes texts of targets and compares them with the true ones.

    Args:
        model: Model in evaluation mode, trained on ``text``.
        vocabulary: Vocabulary of the model.
        targets: Which texts are written, and how.
        batcher: Turns a row into a batch on the model's device.
    """

    def __init__(
        self,
        model: EventModel,
        vocabulary: Vocabulary,
        targets: GenerationTargets,
        batcher: Callable[[PackedRow], Batch],
    ) -> None:
        self._generate = TextGenerator(model, vocabulary, targets.settings)
        self._vocabulary, self._targets, self._batcher = vocabulary, targets, batcher
        self._image_pad = vocabulary.token_ids().image_pad

    def add_to(self, targets: pa.Table, row: PackedRow) -> pa.Table:
        """Fill the columns of written texts for the targets that are drawn.

        Args:
            targets: Forecasts of the row's targets, ``targets.TARGET_SCHEMA``, in the order of the
                events.
            row: The row, with one question about the text of each target.
        """
        assert row.questions is not None
        is_asked = row.questions.task == TASKS["text"]
        is_asked &= row.event_is_target[row.questions.event]
        asked = np.flatnonzero(is_asked)
        asked = asked[np.argsort(row.questions.event[asked], kind="stable")]
        names = zip(
            targets["sequence_id"].to_pylist(), targets["position"].to_pylist(), strict=True
        )
        rows = [
            self._write(row, question) if self._targets.is_drawn(*name) else {}
            for question, name in zip(asked.tolist(), names, strict=True)
        ]
        columns = pa.Table.from_pylist(rows, pa.schema(_FIELDS))
        for field in _FIELDS:
            index = targets.schema.get_field_index(field.name)
            targets = targets.set_column(index, field, columns[field.name])
        return targets

    def _write(self, row: PackedRow, question: int) -> dict[str, object]:
        """The true text of a question's event, the written one, and their similarity."""
        assert row.questions is not None
        assert row.branches is not None
        history = row.before_question(question, image_pad=self._image_pad, with_question=True)
        written = self._generate(self._batcher(history))
        is_text = (row.branches.task == TASKS["text"]) & (row.modality == Modality.TEXT)
        is_text &= row.event == row.questions.event[question]
        text = self._vocabulary.decode_text(row.input_ids[is_text].tolist())
        return {"text": text, "written": written, **text_scores(text, written)}
