"""The prompts that MM-TPP trains on, in DanmakuTPP-QA's second form."""

import pytest

from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from tests.tables import json_lines

QA = build_reader("danmaku_qa")
HISTORY = (
    "<|im_start|>user\nHistory:\n"
    "<|start_of_event|> <|time_start|><|byte_0|><|byte_0|><|byte_0|><|byte_0|><|time_end|> "
    "<|text_start|>first<|text_end|> <|vision_start|><|image_pad|><|vision_end|> "
    "<|end_of_event|>\n"
    "<|start_of_event|> <|time_start|><|byte_63|><|byte_192|><|byte_0|><|byte_0|><|time_end|> "
    "<|type_start|><|type_4|><|type_end|> <|text_start|>second<|text_end|> <|end_of_event|>\n"
)
LINE = {
    "prompt_text": HISTORY + "<|question|>How many peaks?<|im_end|>\n<|im_start|>assistant\n",
    "response_text": "3<|im_end|>",
    "prompt_image_paths": ["frames/1.jpg"],
}


def test_a_question_comes_with_its_events():
    parsed = read_file(QA, "qa.jsonl", json_lines([LINE]), types=TypeCodes(()))
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
    other = LINE | {"prompt_text": HISTORY + "<|question|>Which type is last?<|im_end|>\n"}
    apart = LINE | {"prompt_text": HISTORY.replace("second", "third") + "<|question|>What?\n"}
    parsed = read_file(QA, "qa.jsonl", json_lines([LINE, other, apart]), types=TypeCodes(()))
    assert QA.split_key is not None
    first, second, third = map(QA.split_key, parsed.sequences)
    assert first == second != third


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"response_text": None}, "must be strings"),
        ({"prompt_text": "no events"}, "has no events"),
        ({"prompt_image_paths": []}, "0 images, but 1 of 1 placeholders"),
        ({"prompt_text": HISTORY + "<|vision_start|>"}, "1 images, but 1 of 2 placeholders"),
        ({"prompt_text": HISTORY + "<|similar_event|>\n"}, "compressed"),
        ({"prompt_text": HISTORY.replace("byte_192", "byte_999")}, "event 2 lacks a time"),
        ({"prompt_text": HISTORY.replace("byte_63", "byte_255")}, "event 2 has the interval"),
        ({"prompt_image_paths": 3}, "must be a list"),
    ],
)
def test_a_line_that_is_no_question_is_rejected_with_its_reason(change: dict, problem: str):
    parsed = read_file(QA, "qa.jsonl", json_lines([LINE, {**LINE, **change}]), types=TypeCodes(()))
    assert len(parsed.sequences) == 1
    # every event is counted; a prompt without events counts as one
    lost = 1 if change == {"prompt_text": "no events"} else 2
    causes = [(record.cause, record.row) for record in parsed.rejected]
    assert causes == [("malformed_record", 1)] * lost
    assert parsed.rejected[0].message().startswith("qa.jsonl, line 2: ")
    assert problem in parsed.rejected[0].detail
