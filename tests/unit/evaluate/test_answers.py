"""Answers in words: metrics by hand, by the published and by the corrected definitions."""

import json

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.evaluate.actors.answer_scorer import ANSWER_SCHEMA
from mmtpp.evaluate.answers import answer_estimates
from mmtpp.evaluate.scores.estimates import as_json_tree, finite_values
from mmtpp.evaluate.scores.text_metrics import text_scores


def _table(pairs: list[tuple[str, str]], names: list[str] | None = None) -> pa.Table:
    names = names or [f"qa#{index}" for index in range(len(pairs))]
    rows = [
        {
            "sequence_id": name,
            "question_index": 0,
            "question": "?",
            "answer": answer,
            "written": written,
            "nll": 3.0,
            "tokens": 2,
        }
        for name, (answer, written) in zip(names, pairs, strict=True)
    ]
    return pa.Table.from_pylist(rows, ANSWER_SCHEMA)


def _values(pairs: list[tuple[str, str]]) -> dict[str, float]:
    return {name: estimate.value for name, estimate in answer_estimates(_table(pairs)).items()}


def test_numbers_count_whatever_the_written_answer_is():
    values = _values([("12", "12"), ("5", "7"), ("20", "about 30 peaks"), ("1", "none")])
    assert values["qa/parsed"] == 3 / 4
    assert values["qa/accuracy_of_numbers"] == 1 / 4
    assert values["qa/mean_absolute_error"] == (0 + 2 + 10) / 3
    assert values["qa/mean_squared_error"] == (0 + 4 + 100) / 3
    assert values["qa/nll_nats_per_token"] == 1.5
    assert "qa/recall_of_names" not in values


def test_counts_and_numbers_as_in_the_scripts_for_models_behind_an_api():
    """eval/acc.py: within 3, of at most 3 characters, over all questions. eval/rmse.py: a mean
    absolute error over answers of at most 10 characters, without asterisks."""
    pairs = [
        ("12", "12"),
        ("5", " 8 "),
        ("5", "9"),
        ("20", "20 peaks"),
        ("1000", "1000"),
        ("4", "4.0"),
        ("7", "about seven, I think"),
        ("6", "**6**"),
    ]
    values = _values(pairs)
    assert values["qa/published_accuracy"] == 2 / 8
    # 12, 8, 9, 1000, 4.0 and **6**; the other answers are no numbers
    assert values["qa/published_rmse"] == (0 + 3 + 4 + 0 + 0 + 0) / 6
    values = _values([("1.5", "2.0"), ("-0.25", "-0.25000000000"), ("3.5", "*3*")])
    assert values["qa/published_rmse"] == (0.5 + 0.5) / 2
    assert "qa/published_accuracy" not in values


def test_numbers_as_in_the_scripts_for_fine_tuned_models():
    """test_task1.py: equal, over answers with a number. test_task2.py: a true RMSE."""
    values = _values([("12", "12 peaks"), ("5", "it is 6"), ("5", "none"), ("3", "3, then 9")])
    assert values["qa/finetuned_accuracy"] == 2 / 3
    values = _values([("1.5", "2.5"), ("4.0", "1.0 s"), ("4.0", "soon")])
    assert values["qa/finetuned_rmse"] == pytest.approx(np.sqrt((1 + 9) / 2))
    pairs = [("下一个时间点 7.5。", "下一个时间点 8.5。"), ("下一个时间点 7.5。", "7.5")]
    assert _values(pairs)["qa/finetuned_rmse"] == 1.0  # the phrase is missing: left out
    peaks = "波峰数量为 3。波峰时间戳为: [1, 2, 9]。"
    values = _values([(peaks, peaks.replace("3。", "4。")), (peaks, "The number of peaks is 3")])
    assert values["qa/finetuned_accuracy"] == 1 / 2
    assert values["qa/accuracy_of_numbers"] == 1 / 2
    sentiment = "时间窗口内的平均情感极性分数 0.5。"
    values = _values([(sentiment, sentiment.replace("0.5", "-0.5")), (sentiment, "about 0.75")])
    assert values["qa/finetuned_rmse"] == pytest.approx(np.sqrt((1 + 0.25**2) / 2))


def test_names_count_one_by_one_and_a_slash_is_part_of_a_name():
    values = _values(
        [
            ("humor/meme, question", "Question"),
            ("a, b", "b and a"),
            ("c, d", "cd"),
            ("humor/meme, quote/reference", "humor, meme"),
        ]
    )
    assert values["qa/recall_of_names"] == (0.5 + 1 + 0 + 0) / 4
    # as published, any substring counts one half, in the same case: "Question" is no hit
    assert values["qa/published_recall_of_names"] == (0 + 1 + 1 + 0) / 4
    # as fine-tuned: sets, separated by commas alone, in the same case
    assert values["qa/finetuned_recall_of_names"] == (0 + 0 + 0 + 0) / 4
    assert "qa/parsed" not in values


def test_of_one_name_or_three_the_published_script_reads_the_first():
    values = _values([("question", "a question"), ("off_topic, question, humor/meme", "question")])
    assert values["qa/published_recall_of_names"] == (1 + 0) / 2
    # one of three as a set is half, and "a question" is no name; accuracy is of single names
    assert values["qa/finetuned_recall_of_names"] == (0 + 0.5) / 2
    assert values["qa/finetuned_accuracy"] == 0.0
    pair = "下一个波峰点主要事件类型 [social_interaction, humor/meme]。"
    one = "下一个时间点事件类型 question。"
    turned = "下一个波峰点主要事件类型 [humor/meme, social_interaction]。"
    values = _values([(pair, turned), (pair, "humor/meme"), (one, one)])
    assert values["qa/finetuned_recall_of_names"] == (1 + 0 + 1) / 3
    assert values["qa/finetuned_accuracy"] == 1.0
    assert values["qa/published_recall_of_names"] == (1 + 0.5 + 1) / 3


def test_a_match_compares_words():
    values = _values([("Yes.", " yes"), ("no", "No!")])
    assert values["qa/exact_match"] == 0.5


def test_several_files_have_separate_metrics():
    pairs = [("1", "1"), ("1", "2"), ("3", "3")]
    values = answer_estimates(_table(pairs, ["one#0", "one#1", "two#0"]))
    assert values["qa/one/accuracy_of_numbers"].value == 0.5
    assert values["qa/two/accuracy_of_numbers"].value == 1.0
    assert values["qa/accuracy_of_numbers"].value == 2 / 3


def test_texts_by_hand():
    # longest common subsequence 2 of 3 and of 4 words: F = 2 * (2/4) * (2/3) / (2/4 + 2/3)
    assert text_scores("a b c", "a x c y")["rouge_l"] == pytest.approx(4 / 7)
    # every Chinese character is a word: 2 of 3 and of 2
    assert text_scores("太好了", "太好")["rouge_l"] == pytest.approx(0.8)
    # three right words instead of four: brevity exp(1 - 4/3), all orders up to 3 perfect
    assert text_scores("a b c d", "a b c")["bleu"] == pytest.approx(np.exp(1 - 4 / 3))
    assert text_scores("Same", "same")["bleu"] == pytest.approx(1)
    assert text_scores("some text", "") == {"rouge_l": 0, "bleu": 0, "chrf": 0}
    # no characters in common, and all of them
    assert text_scores("abc", "xyz")["chrf"] == 0
    assert text_scores("abcdef", "abcdef")["chrf"] == pytest.approx(1)


def test_a_huge_written_number_makes_its_error_infinite_and_stops_nothing():
    count = "波峰数量为"
    long = "9" * 160
    estimates = answer_estimates(_table([("12", "1e200"), (f"{count}12", f"{count}{long}")]))
    assert estimates["qa/mean_squared_error"].value == np.inf
    assert estimates["qa/finetuned_rmse"].value == np.inf
    assert "qa/mean_squared_error" not in finite_values(estimates)
    tree = json.loads(json.dumps(as_json_tree(estimates), allow_nan=False))
    assert tree["qa/mean_squared_error"]["value"] is None
