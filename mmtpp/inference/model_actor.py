"""The base of all actors that evaluate or predict: a loaded model and the rows it reads."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from mmtpp.core.representation.row import PackedRow
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.model.batch import Batch
from mmtpp.model.loaded_model import LoadedModel, ModelLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelActorSettings:
    """Settings that every actor with a model needs.

    Attributes:
        sample_settings: Settings that the plan was made with.
        location: Where the model is loaded from.
    """

    sample_settings: SampleSettings
    location: ModelLocation


class ModelActor(ABC):
    """A Ray Data actor that loads a model once and turns each sample of a plan into rows.

    Args:
        settings: Settings of the actor.

    Attributes:
        loaded: The model on its device.
    """

    def __init__(self, settings: ModelActorSettings) -> None:
        self._image_px = settings.sample_settings.image_px
        self.loaded = LoadedModel.load(settings.location, image_px=self._image_px)
        self._assembler = Assembler(settings.sample_settings, self.loaded.token_ids)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Process samples, ``plan.samples_table``, one after the other."""
        return pa.concat_tables([self.process(sample) for sample in self._assemble(samples)])

    @abstractmethod
    def process(self, sample: AssembledRow) -> pa.Table:
        """The rows of one sample; all samples have the same schema."""

    def history_batch(self, row: PackedRow, question: int, *, with_question: bool = False) -> Batch:
        """The events that a question may see, as a batch on the model's device.

        Args:
            row: A row with questions.
            question: Index of the question.
            with_question: Whether the batch ends with the question itself.
        """
        image_pad = self.loaded.token_ids.image_pad
        plain = row.before_question(question, image_pad=image_pad, with_question=with_question)
        return self.loaded.batcher(plain)

    def _assemble(self, samples: pa.Table) -> Iterator[AssembledRow]:
        assembled = self._assembler(samples)
        for index, windows in enumerate(samples["windows"].to_pylist()):
            row = row_from_arrow(assembled, index, image_px=self._image_px)
            yield AssembledRow(row, assembled.slice(index, 1), windows)
