"""Answer the questions about held-out windows: a Ray Data actor, on a GPU where there is one."""

from dataclasses import dataclass

import pyarrow as pa

from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.model.decoding.generation import GenerationSettings, TextGenerator
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.row_forecaster import RowForecaster

ANSWER_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("question_index", pa.int32()),  # among the questions of the sequence, from 0
        ("question", pa.string()),
        ("answer", pa.string()),  # the true answer
        ("written", pa.string()),
        ("nll", pa.float64()),  # nats of the true answer and its end token
        ("tokens", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScorerSettings(ModelActorSettings):
    """Settings of ``AnswerScorer``.

    Attributes:
        trained_tasks: Tasks that the model was trained on.
        generation: Settings of the written answers.
    """

    trained_tasks: TrainedTasks
    generation: GenerationSettings


class AnswerScorer(ModelActor):
    """Scores the true answers to questions in words and writes the model's answers.

    Each sample is one window.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: AnswerScorerSettings) -> None:
        super().__init__(settings)
        loaded, trained_tasks = self.loaded, settings.trained_tasks
        self._reader = StoreReader(settings.sample_settings.store)
        num_bytes = settings.sample_settings.template.time_bytes
        self._forecaster = RowForecaster(
            loaded.model,
            loaded.token_ids,
            loaded.vocabulary.type_ids(trained_tasks.type_codes),
            trained_tasks.interval_range.grid(num_bytes=num_bytes),
        )
        self._generate = TextGenerator(loaded.model, loaded.vocabulary, settings.generation)

    def process(self, sample: AssembledRow) -> pa.Table:
        """Answer the questions of one window, ``ANSWER_SCHEMA``."""
        [window] = sample.windows
        likelihoods = self._forecaster(sample.row, self.loaded.batcher(sample.row)).qa
        assert likelihoods is not None
        address = Address.from_window(window)
        questions = self._reader.questions(address)
        rows: list[dict[str, object]] = []
        for index in range(window["first_question"], window["end_question"]):
            window_index = index - window["first_question"]
            history = self.history_batch(sample.row, window_index, with_question=True)
            rows.append(
                {
                    "sequence_id": window["sequence_id"],
                    "question_index": index,
                    "question": questions[index].question,
                    "answer": questions[index].answer,
                    "written": self._generate(history),
                    "nll": float(likelihoods.nll[window_index]),
                    "tokens": int(likelihoods.num_tokens[window_index]),
                }
            )
        return pa.Table.from_pylist(rows, ANSWER_SCHEMA)
