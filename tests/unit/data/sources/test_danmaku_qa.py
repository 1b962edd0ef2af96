"""Records of the DanmakuTPP-QA benchmark, written by hand."""

import json

import pytest

from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.event_files import QA_RECORD

QA = build_reader("danmaku_qa")


def _records(records: list[dict], path: str = "task_8/test.json"):
    return read_file(QA, path, json.dumps(records).encode(), types=TypeCodes(()))


def test_records_of_the_benchmark_are_read():
    parsed = _records([QA_RECORD])
    (sequence,) = parsed.sequences
    assert sequence.sequence_id == "task_8/test#0 of BV1x"
    assert sequence.times.tolist() == [1.25, 4.5, 4.5]
    assert sequence.texts == ("first", "second", "third")
    question = "Which two types come next?\ntime_window: [0, 60]"
    assert sequence.questions == ((question, "humor/meme, question"),)
    assert (parsed.counts.num_read, parsed.rejected) == (3, [])


def test_answers_are_found_under_the_names_of_all_tasks():
    count = {key: value for key, value in QA_RECORD.items() if key != "ground_truth"}
    report = {**count, "sentiment_sequence": [0.5, -1, 0], "sentiment_analysis_report": "It falls."}
    del report["comment_sequence"]
    peaks = count | {"num_peaks": 3, "next_peak_time": 70.5}
    parsed = _records([peaks, report, count | {"ground_truth": 7.5, "next_peak_time": 7.5}])
    answers = [sequence.questions[0][1] for sequence in parsed.sequences]
    assert answers == ["3", "It falls.", "7.5"]
    assert parsed.sequences[1].texts == ("-1", "0.5", "0")
    asked = [sequence.questions[0][0] for sequence in parsed.sequences]
    assert asked[0].endswith("next_peak_time: 70.5")
    assert "7.5" not in asked[2]  # the answer itself


def test_records_of_a_video_are_in_one_split():
    apart = QA_RECORD | {"video": "BV2x"}
    later = QA_RECORD | {"comment_time_sequence": [100, 101, 102]}
    assert QA.split_key is not None
    first, second, third = map(QA.split_key, _records([QA_RECORD, later, apart]).sequences)
    assert first == second != third


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"comment_sequence": ["one"]}, "3 values in comment_time_sequence, 1 in comment_sequence"),
        ({"comment_time_sequence": []}, "must be lists with at least one value"),
        ({"comment_sequence": "abc"}, "must be lists"),
        ({"question": None}, "question must be a string"),
        ({"ground_truth": None}, "no answer"),
        ({"ground_truth": []}, "no answer"),
        ({"ground_truth": {"a": 1}}, "no answer"),
    ],
)
def test_a_record_without_events_or_answer_is_rejected_with_its_reason(change: dict, problem: str):
    parsed = _records([QA_RECORD, QA_RECORD | change])
    assert len(parsed.sequences) == 1
    # every comment is counted; a record without comments counts as one
    lost = 1 if change == {"comment_time_sequence": []} else 3
    causes = [(record.cause, record.row) for record in parsed.rejected]
    assert causes == [("malformed_record", 1)] * lost
    assert problem in parsed.rejected[0].detail
    assert parsed.counts.num_read == 3 + lost


def test_a_comment_without_a_time_is_rejected_alone():
    parsed = _records([QA_RECORD | {"comment_time_sequence": [1, "soon", 2]}])
    assert len(parsed.sequences[0].times) == 2
    assert [record.cause for record in parsed.rejected] == ["unreadable_time"]
