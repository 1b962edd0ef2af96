"""The prompts that MM-TPP trains on, in DanmakuTPP-QA's second form."""

import pytest

from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.event_files import QA_HISTORY, QA_PROMPT
from tests.helpers.tables import json_lines

QA = build_reader("danmaku_qa")


def test_a_question_comes_with_its_events():
    parsed = read_file(QA, "qa.jsonl", json_lines([QA_PROMPT]), types=TypeCodes(()))
    (sequence,) = parsed.sequences
    assert (
        sequence.sequence_id,
        sequence.times.tolist(),
        sequence.types.tolist(),
    ) == ("qa#0", [0.0, 1.5], [0, 4])
    assert sequence.texts == ("first", "second")
    assert sequence.images == ("frames/1.jpg", None)
    assert sequence.questions == (("How many peaks?", "3"),)


def test_questions_about_the_same_events_are_in_one_split():
    other = QA_PROMPT | {"prompt_text": QA_HISTORY + "<|question|>Which type is last?<|im_end|>\n"}
    apart = QA_PROMPT | {
        "prompt_text": QA_HISTORY.replace("second", "third") + "<|question|>What?\n"
    }
    parsed = read_file(QA, "qa.jsonl", json_lines([QA_PROMPT, other, apart]), types=TypeCodes(()))
    assert QA.split_key is not None
    first, second, third = map(QA.split_key, parsed.sequences)
    assert first == second != third


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"response_text": None}, "must be strings"),
        ({"prompt_text": "no events"}, "has no events"),
        ({"prompt_image_paths": []}, "0 images, but 1 of 1 placeholders"),
        ({"prompt_text": QA_HISTORY + "<|vision_start|>"}, "1 images, but 1 of 2 placeholders"),
        ({"prompt_text": QA_HISTORY + "<|similar_event|>\n"}, "compressed"),
        ({"prompt_text": QA_HISTORY.replace("byte_192", "byte_999")}, "event 2 lacks a time"),
        ({"prompt_text": QA_HISTORY.replace("byte_63", "byte_255")}, "event 2 has the interval"),
        ({"prompt_image_paths": 3}, "must be a list"),
    ],
)
def test_a_line_that_is_no_question_is_rejected_with_its_reason(change: dict, problem: str):
    parsed = read_file(
        QA, "qa.jsonl", json_lines([QA_PROMPT, {**QA_PROMPT, **change}]), types=TypeCodes(())
    )
    assert len(parsed.sequences) == 1
    # every event is counted; a prompt without events counts as one
    lost = 1 if change == {"prompt_text": "no events"} else 2
    causes = [(record.cause, record.row) for record in parsed.rejected]
    assert causes == [("malformed_record", 1)] * lost
    assert parsed.rejected[0].message().startswith("qa.jsonl, line 2: ")
    assert problem in parsed.rejected[0].detail
