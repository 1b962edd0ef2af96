"""Answers in words: metrics by hand, the published definitions beside the corrected ones."""

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.evaluate.answers import ANSWER_SCHEMA, answer_estimates
from mmtpp.evaluate.texts import text_scores


def _table(pairs: list[tuple[str, str]], names: list[str] | None = None) -> pa.Table:
    names = names or [f"qa#{index}" for index in range(len(pairs))]
    rows = [
        {"sequence_id": name, "place": 0, "question": "?", "answer": answer, "written": written,
         "nll": 3.0, "tokens": 2}
        for name, (answer, written) in zip(names, pairs, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, ANSWER_SCHEMA)


def _values(pairs: list[tuple[str, str]]) -> dict[str, float]:
    return {name: each.value for name, each in answer_estimates(_table(pairs)).items()}


def test_numbers_count_whatever_was_written():
    found = _values([("12", "12"), ("5", "7"), ("20", "about 30 peaks"), ("1", "none")])
    assert 3 / 4 == found["qa/parsed"]
    assert 1 / 4 == found["qa/accuracy_of_numbers"]
    assert (0 + 2 + 10) / 3 == found["qa/mean_absolute_error"]
    assert (0 + 4 + 100) / 3 == found["qa/mean_squared_error"]
    # the published scripts leave long answers out, take 7 for 5, and call this an RMSE
    assert 2 / 2 == found["qa/published_accuracy"]
    assert (0 + 2) / 2 == found["qa/published_rmse"]
    assert 1.5 == found["qa/nll_nats_per_token"]
    assert "qa/items" not in found


def test_names_count_one_by_one():
    found = _values([("humor, question", "question"), ("a, b", "b and a"), ("c, d", "cd")])
    assert (0.5 + 1 + 0) / 3 == found["qa/items"]
    # as published: any substring counts one half
    assert (0.5 + 1 + 1) / 3 == found["qa/published_items"]
    assert "qa/parsed" not in found


def test_a_match_is_one_of_words():
    found = _values([("Yes.", " yes"), ("no", "No!")])
    assert 0.5 == found["qa/exact_match"]


def test_files_are_told_apart_where_there_are_several():
    pairs = [("1", "1"), ("1", "2"), ("3", "3")]
    found = answer_estimates(_table(pairs, ["one#0", "one#1", "two#0"]))
    assert 0.5 == found["qa/one/accuracy_of_numbers"].value
    assert 1.0 == found["qa/two/accuracy_of_numbers"].value
    assert 2 / 3 == found["qa/accuracy_of_numbers"].value


def test_texts_by_hand():
    # longest common subsequence 2 of 3 and of 4 words: F = 2 * (2/4) * (2/3) / (2/4 + 2/3)
    assert 4 / 7 == pytest.approx(text_scores("a b c", "a x c y")["rouge_l"])
    # every Chinese character is a word: 2 of 3 and of 2
    assert 0.8 == pytest.approx(text_scores("太好了", "太好")["rouge_l"])
    # three words, all there, but four wanted: brevity exp(1 - 4/3), all orders up to 3 perfect
    assert np.exp(1 - 4 / 3) == pytest.approx(text_scores("a b c d", "a b c")["bleu"])
    assert 1 == pytest.approx(text_scores("Same", "same")["bleu"])
    assert {"rouge_l": 0, "bleu": 0, "chrf": 0} == text_scores("some text", "")
    # no characters in common, and all of them
    assert 0 == text_scores("abc", "xyz")["chrf"]
    assert 1 == pytest.approx(text_scores("abcdef", "abcdef")["chrf"])
