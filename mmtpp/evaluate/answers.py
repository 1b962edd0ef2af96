"""Questions in words about held-out sequences: answers written, and what they are worth.

The questions of DanmakuTPP-QA have a number, one or two names or a text as answer. The true answer
alone decides which metrics apply: no answer is left out because of the written one. Metrics whose
names begin with ``published_`` and ``finetuned_`` are those of the benchmark's own scripts, which
do leave answers out (``mmtpp.evaluate.published``).
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.supervision import EveryEvent
from mmtpp.data.samples.actors import iter_samples
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.settings import assemble_settings
from mmtpp.data.store.store_reader import Address, StoreReader
from mmtpp.evaluate.metrics import Estimate, few_sequences, mean_estimates
from mmtpp.evaluate.published import bare, finetuned_values, published_values
from mmtpp.evaluate.targets import writing_settings
from mmtpp.evaluate.text_metrics import TEXT_SCORES, text_scores
from mmtpp.model.generation import TextWriter, WritingSettings
from mmtpp.model.loaded import LoadedModel, ModelSource
from mmtpp.model.next_event_scores import Forecaster
from mmtpp.model.record import Answers
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import join, write_bytes

logger = logging.getLogger(__name__)

ANSWER_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("place", pa.int32()),  # of the question among those of the sequence, from 0
        ("question", pa.string()),
        ("answer", pa.string()),  # the true one
        ("written", pa.string()),
        ("nll", pa.float64()),  # nats, of the true answer and its end
        ("tokens", pa.int32()),
    ]
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
# the full-width ones too; "/" is part of a name: humor/meme, quote/reference
_BETWEEN_ITEMS = re.compile(r"[,;\uff0c\uff1b\u3001\n]|\band\b")


class AnswerScorer:
    """Assembles windows with questions in words, scores the answers and writes its own.

    Args:
        settings: what the plan was made with; one window a sample.
        source: of the model.
        answers: what the model was asked in training.
        num_bytes: of the time codes.
        writing: how answers are written.
    """

    def __init__(
        self,
        settings: AssembleSettings,
        source: ModelSource,
        answers: Answers,
        num_bytes: int,
        writing: WritingSettings,
    ) -> None:
        self._loaded = loaded = LoadedModel.of(source, image_px=settings.image_px)
        self._assembler = Assembler(settings, loaded.token_ids)
        self._reader = StoreReader(settings.store)
        self._forecaster = Forecaster(
            loaded.model,
            loaded.token_ids,
            loaded.vocabulary.type_ids(answers.type_codes),
            answers.intervals.grid(num_bytes=num_bytes),
        )
        self._write = TextWriter(loaded.model, loaded.vocabulary, writing)
        self._image_px = settings.image_px

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Answer the questions of samples, ``ANSWER_SCHEMA``."""
        assembled = self._assembler(samples)
        rows: list[dict[str, object]] = []
        for index, (window,) in enumerate(samples["windows"].to_pylist()):
            row = row_from_arrow(assembled, index, image_px=self._image_px)
            found = self._forecaster(row, self._loaded.batcher(row)).qa
            assert found is not None
            questions = self._reader.questions(
                Address(*(window[n] for n in ("file", "group", "row")))
            )
            for place in range(window["first_question"], window["end_question"]):
                asked = place - window["first_question"]
                plain = row.before_question(
                    asked, image_pad=self._loaded.token_ids.image_pad, with_question=True
                )
                rows.append(
                    {
                        "sequence_id": window["sequence_id"],
                        "place": place,
                        "question": questions[place].question,
                        "answer": questions[place].answer,
                        "written": self._write(self._loaded.batcher(plain)),
                        "nll": float(found.nll[asked]),
                        "tokens": int(found.num_tokens[asked]),
                    }
                )
        return pa.Table.from_pylist(rows, ANSWER_SCHEMA)


def evaluate_answers(
    config: RunConfig,
    source: ModelSource,
    answers: Answers,
    manifest: Manifest,
    vocabulary: Vocabulary,
    run_uri: str,
) -> tuple[dict[str, float], int, str]:
    """Answer every question of the held-out split.

    Writes ``answers.parquet`` and, with confidence intervals, ``answers.json``.

    Returns:
        Metrics by name, the number of questions, and where the table is.
    """
    settings = assemble_settings(
        config, manifest, split=config.evaluation.split, supervision=EveryEvent(("qa",))
    )
    plan = make_plan(settings, vocabulary.token_ids())
    tables = iter_samples(
        config,
        plan,
        AnswerScorer,
        (
            settings,
            source,
            answers,
            config.template.time_bytes,
            writing_settings(config),
        ),
        title="evaluate: answers",
    )
    order = [("sequence_id", "ascending"), ("place", "ascending")]
    table = pa.concat_tables(list(tables)).sort_by(order)
    uri = join(run_uri, "answers.parquet")
    write_table(uri, table)
    estimates = answer_estimates(table, seed=config.training.seed)
    tree: dict[str, object] = {name: asdict(each) for name, each in estimates.items()}
    if note := few_sequences(len(table["sequence_id"].unique())):
        logger.warning("%s", note)
        tree["note"] = note
    write_bytes(join(run_uri, "answers.json"), json.dumps(tree, indent=2).encode())
    metrics = {name: each.value for name, each in estimates.items()}
    return metrics | plan.long_texts.figures("answers_"), len(table), uri


def answer_estimates(table: pa.Table, *, seed: int = 0) -> dict[str, Estimate]:
    """Metrics of answers, over all and, where there are several, by the file they come from.

    Args:
        table: ``ANSWER_SCHEMA``, at least one row.
        seed: of the resampling.

    Returns:
        Estimates by ``qa/metric`` and ``qa/FILE/metric``.
    """
    files = [name.rpartition("#")[0] or name for name in table["sequence_id"].to_pylist()]
    values = answer_values(table)
    sequences = table["sequence_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    found = {f"qa/{name}": each for name, each in _estimates(values, sequences, seed).items()}
    kinds = sorted(set(files))
    if len(kinds) < 2 or len(kinds) == len(files):
        return found
    for kind in kinds:
        chosen = np.array([file == kind for file in files])
        part = {name: (top[chosen], down[chosen]) for name, (top, down) in values.items()}
        of_kind = _estimates(part, sequences[chosen], seed)
        found |= {f"qa/{kind}/{name}": each for name, each in of_kind.items()}
    return found


def _estimates(
    values: dict[str, tuple[np.ndarray, np.ndarray]], sequences: np.ndarray, seed: int
) -> dict[str, Estimate]:
    found = mean_estimates(values, sequences, seed)
    if square := found.pop("finetuned_squared_error", None):
        roots = (np.sqrt(value) for value in (square.value, square.low, square.high))
        found["finetuned_rmse"] = Estimate(*map(float, roots))
    return found


def answer_values(table: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The numerator and the denominator of each metric for each question, (N,) each.

    ``exact_match``: the same words; case, outer blanks and final stops do not count. ``parsed``:
    share of the numbers asked for that were written as one. ``accuracy_of_numbers``: the same
    number; an answer without a number is wrong. ``mean_absolute_error`` and
    ``mean_squared_error``: of the answers with a number; see ``parsed`` for their share.
    ``items``: share of the true names that are among the written ones. ``published_`` and
    ``finetuned_``: see ``mmtpp.evaluate.published``. A metric without any question is left out.
    """
    truths, written = table["answer"].to_pylist(), table["written"].to_pylist()
    every = np.ones(len(table))
    scores = [text_scores(*pair) for pair in zip(truths, written, strict=True)]
    values = {
        "nll_nats_per_token": (table["nll"].to_numpy(), table["tokens"].to_numpy().astype(float)),
        "exact_match": (
            _flags([_plain(a) == _plain(b) for a, b in zip(truths, written, strict=True)]),
            every,
        ),
        **{name: (np.array([each[name] for each in scores]), every) for name in TEXT_SCORES},
    }
    true, said = (np.array([_number(text) for text in texts]) for texts in (truths, written))
    asked = ~np.isnan(true)
    has = asked & ~np.isnan(said)
    error = np.where(has, np.abs(said - true), 0.0)
    names = [[] if asked[place] else _names(text) for place, text in enumerate(truths)]
    shared = [
        len({*map(_plain, wanted)} & {*map(_plain, _items(text))}) / max(1, len(wanted))
        for wanted, text in zip(names, written, strict=True)
    ]
    values |= {
        "parsed": (has.astype(float), asked.astype(float)),
        "accuracy_of_numbers": (_flags(has & (error == 0)), asked.astype(float)),
        "mean_absolute_error": (error, has.astype(float)),
        "mean_squared_error": (error**2, has.astype(float)),
        "items": (np.array(shared), _flags([bool(wanted) for wanted in names])),
        **published_values(truths, names, written),
        **finetuned_values(truths, names, written),
    }
    return values


def _flags(values: Sequence[bool] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".。")


def _number(text: str) -> float:
    """The number a text is, units and the scripts' phrase aside; NaN where it is none."""
    text = bare(text)
    found = _NUMBER.findall(text)
    return float(found[0]) if len(found) == 1 and len(text) <= 40 else float("nan")


def _items(text: str) -> list[str]:
    """The parts of a list in words, in order."""
    parts = (part.strip(" []'\"") for part in _BETWEEN_ITEMS.split(bare(text)))
    return [part for part in parts if _plain(part)]


def _names(text: str) -> list[str]:
    """The names a true answer is: one word, or two or three names of at most three words."""
    items = _items(text)
    longest = 1 if len(items) == 1 else 3
    is_names = 1 <= len(items) <= 3 and all(len(item.split()) <= longest for item in items)
    return items if is_names else []
