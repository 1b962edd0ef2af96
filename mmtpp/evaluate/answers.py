"""Questions in words about held-out sequences: written answers and their metrics.

The true answer of a question of DanmakuTPP-QA is a number, one to three names, or a text. The true
answer alone decides which metrics apply: no question is left out because of the written answer.
Metrics whose names begin with ``published_`` and ``finetuned_`` are defined by the benchmark's own
scripts, which do leave answers out (``mmtpp.evaluate.scores.published``).
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from mmtpp.core.representation.supervision import EveryEvent
from mmtpp.data.samples.actors import map_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.evaluate.actors.answer_scorer import AnswerScorer, AnswerScorerSettings
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.evaluation_scores import EvaluationScores
from mmtpp.evaluate.scores import metric_names
from mmtpp.evaluate.scores.estimates import (
    Estimate,
    Ratio,
    as_json_tree,
    few_sequences_warning,
    finite_values,
    mean_estimates,
)
from mmtpp.evaluate.scores.published import (
    FINETUNED_SQUARED_ERROR,
    finetuned_values,
    published_values,
    without_phrase,
)
from mmtpp.evaluate.scores.text_metrics import TEXT_SCORES, text_scores
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import write_bytes

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
# also full-width characters; "/" is part of a name: humor/meme, quote/reference
_BETWEEN_ITEMS = re.compile(r"[,;\uff0c\uff1b\u3001\n]|\band\b")


def plan_answers(context: EvaluationContext) -> Plan:
    """The samples with the questions of the held-out split.

    Raises:
        DataError: There is no question to ask.
    """
    return make_plan(_sample_settings(context), context.vocabulary.token_ids())


def evaluate_answers(
    context: EvaluationContext, trained_tasks: TrainedTasks, plan: Plan
) -> EvaluationScores:
    """Answer every question of the held-out split.

    Writes ``answers.parquet`` and, with confidence intervals, ``answers.json``.

    Args:
        context: The evaluation.
        trained_tasks: Tasks that the model was trained on.
        plan: The samples with the questions.
    """
    settings = AnswerScorerSettings(
        sample_settings=_sample_settings(context),
        location=context.location,
        trained_tasks=trained_tasks,
        generation=context.generation,
    )
    tables = map_samples(plan, AnswerScorer, settings, context.actors, title="evaluate: answers")
    order = [("sequence_id", "ascending"), ("question_index", "ascending")]
    table = pa.concat_tables(list(tables)).sort_by(order)
    uri = context.path("answers.parquet")
    write_table(uri, table)
    estimates = answer_estimates(table, seed=context.seed)
    tree = as_json_tree(estimates)
    if note := few_sequences_warning(len(table["sequence_id"].unique())):
        logger.warning("%s", note)
        tree["note"] = note
    write_bytes(context.path("answers.json"), json.dumps(tree, indent=2).encode())
    return EvaluationScores(
        metrics=finite_values(estimates) | plan.long_texts.metrics("answers_"),
        tables={"answers": len(table), "answers_uri": uri},
    )


def _sample_settings(context: EvaluationContext) -> SampleSettings:
    return replace(context.held_out_sample_settings, supervision=EveryEvent(("qa",)))


def answer_estimates(table: pa.Table, *, seed: int = 0) -> dict[str, Estimate]:
    """Estimate the metrics of answers: over all, and by file where the questions have several.

    Args:
        table: ``answer_scorer.ANSWER_SCHEMA``, at least one row.
        seed: Seed of the bootstrap.

    Returns:
        Estimates by ``qa/METRIC`` and ``qa/FILE/METRIC``.
    """
    files = [name.rpartition("#")[0] or name for name in table["sequence_id"].to_pylist()]
    values = answer_values(table)
    sequences = table["sequence_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    estimates = {
        metric_names.answer_metric(name): estimate
        for name, estimate in _estimates(values, sequences, seed).items()
    }
    distinct = sorted(set(files))
    if len(distinct) < 2 or len(distinct) == len(files):
        return estimates
    for file in distinct:
        is_in_file = np.array([name == file for name in files])
        part = {
            name: (numerator[is_in_file], denominator[is_in_file])
            for name, (numerator, denominator) in values.items()
        }
        estimates |= {
            metric_names.answer_metric(name, file): estimate
            for name, estimate in _estimates(part, sequences[is_in_file], seed).items()
        }
    return estimates


def _estimates(
    values: Mapping[str, Ratio], sequences: np.ndarray, seed: int
) -> dict[str, Estimate]:
    estimates = mean_estimates(values, sequences, seed)
    if square := estimates.pop(FINETUNED_SQUARED_ERROR, None):
        roots = (np.sqrt(value) for value in (square.value, square.low, square.high))
        estimates[metric_names.FINETUNED_RMSE] = Estimate(*map(float, roots))
    return estimates


def answer_values(table: pa.Table) -> dict[str, Ratio]:
    """The numerator and the denominator of each metric for each question, (N,) values each.

    - ``exact_match``: the same words; case, outer blanks and final stops do not count.
    - ``parsed``: share of the questions about a number whose written answer is a number.
    - ``accuracy_of_numbers``: the same number; a written answer without a number is wrong.
    - ``mean_absolute_error``, ``mean_squared_error``: errors of the written answers with a number.
    - ``recall_of_names``: share of the true names that are among the written names.
    - ``published_``, ``finetuned_``: see ``mmtpp.evaluate.scores.published``.

    Args:
        table: ``answer_scorer.ANSWER_SCHEMA``.
    """
    truths, written = table["answer"].to_pylist(), table["written"].to_pylist()
    ones = np.ones(len(table))
    pairs = list(zip(truths, written, strict=True))
    scores = [text_scores(truth, text) for truth, text in pairs]
    is_match = [_normalise(truth) == _normalise(text) for truth, text in pairs]
    true_number, written_number = (
        np.array([_number(text) for text in texts]) for texts in (truths, written)
    )
    is_number = ~np.isnan(true_number)
    is_parsed = is_number & ~np.isnan(written_number)
    error = np.where(is_parsed, np.abs(written_number - true_number), 0.0)
    with np.errstate(over="ignore"):  # infinite for a written number such as 1e200
        squared_error = error**2
    true_names = [[] if is_number[index] else _names(text) for index, text in enumerate(truths)]
    shared = [
        len({*map(_normalise, wanted)} & {*map(_normalise, _items(text))}) / max(1, len(wanted))
        for wanted, text in zip(true_names, written, strict=True)
    ]
    num_tokens = table["tokens"].to_numpy().astype(float)
    return {
        metric_names.ANSWER_NLL: (table["nll"].to_numpy(), num_tokens),
        metric_names.ANSWER_EXACT_MATCH: (_as_floats(is_match), ones),
        **{name: (np.array([score[name] for score in scores]), ones) for name in TEXT_SCORES},
        metric_names.ANSWER_PARSED: (is_parsed.astype(float), is_number.astype(float)),
        metric_names.ANSWER_NUMBER_ACCURACY: (
            _as_floats(is_parsed & (error == 0)),
            is_number.astype(float),
        ),
        metric_names.ANSWER_ABSOLUTE_ERROR: (error, is_parsed.astype(float)),
        metric_names.ANSWER_SQUARED_ERROR: (squared_error, is_parsed.astype(float)),
        metric_names.ANSWER_NAMES: (
            np.array(shared),
            _as_floats([bool(some) for some in true_names]),
        ),
        **published_values(truths, true_names, written),
        **finetuned_values(truths, true_names, written),
    }


def _as_floats(values: Sequence[bool] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".。")


def _number(text: str) -> float:
    """The only number in a short text, without the scripts' phrase; NaN where there is none."""
    text = without_phrase(text)
    numbers = _NUMBER.findall(text)
    return float(numbers[0]) if len(numbers) == 1 and len(text) <= 40 else float("nan")


def _items(text: str) -> list[str]:
    """The items of a list in words, in order."""
    parts = (part.strip(" []'\"") for part in _BETWEEN_ITEMS.split(without_phrase(text)))
    return [part for part in parts if _normalise(part)]


def _names(text: str) -> list[str]:
    """The names in a true answer: one word, or two or three names of at most three words."""
    items = _items(text)
    max_words = 1 if len(items) == 1 else 3
    is_names = 1 <= len(items) <= 3 and all(len(item.split()) <= max_words for item in items)
    return items if is_names else []
