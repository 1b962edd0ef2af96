"""DanmakuTPP-QA in two forms: the benchmark's own JSON, and the prompts MM-TPP fine-tunes on.

The benchmark's own form is a list of records, a file a task and split:

    [{"video": "BV1x", "question": "What comes next?", "time_window": [0, 60],
      "comment_time_sequence": [0.5, 3.25, ...], "comment_sequence": ["hello", ...],
      "ground_truth": "3.5"}, ...]

A record is a sequence: its comments, with times as given and of type 0, and one question with its
answer. Task 1 has its answer under ``num_peaks``, task 9 under ``sentiment_analysis_report``; a
list of answers is joined by commas. Where a record has no comments, their sentiments
(``sentiment_sequence``) are the texts. ``time_window``, ``next_peak_time`` and, where the record
describes a peak, its description follow the question. The frames of a window belong to no event
and are not read. Records of one video are in the same split.

MM-TPP's form is JSON lines of a prompt, its images and a response:

    {"prompt_text": "...<|start_of_event|> <|time_start|><|byte_0|>...<|end_of_event|>...
                     <|question|>What comes next?<|im_end|>\\n<|im_start|>assistant\\n",
     "response_text": "...<|im_end|>", "prompt_image_paths": ["frames/1.jpg", ...]}

The prompt spells its events in the published template. A line is a sequence: its events with times
counted from the first, and one question with its answer. Compressed events of a prompt have lost
their time, text and image, so a line with such an event is rejected. Lines with the same events are
in the same split.
"""

import math
import re
from collections.abc import Iterator

import numpy as np

from mmtpp.core.events import MAX_TYPES, EventSequence
from mmtpp.core.timecode import decode_intervals
from mmtpp.data.sources.reader import RawEvent, RawQuestion, SourceReader, stem
from mmtpp.data.sources.tables import read_records

_EVENT = re.compile(r"<\|start_of_event\|>(.*?)<\|end_of_event\|>", re.DOTALL)
_TIME = re.compile(r"<\|time_start\|>((?:<\|byte_\d{1,3}\|>){4})<\|time_end\|>")
_BYTE = re.compile(r"<\|byte_(\d{1,3})\|>")
_TYPE = re.compile(r"<\|type_start\|><\|type_(\d{1,3})\|><\|type_end\|>")
_TEXT = re.compile(r"<\|text_start\|>(.*?)<\|text_end\|>", re.DOTALL)
_ENDS = re.compile(r"<\|(?:im_end|endoftext)\|>")
_TIMES = "comment_time_sequence"
_ANSWERS = ("ground_truth", "num_peaks", "sentiment_analysis_report")
_ABOUT = ("time_window", "next_peak_time")
_ABOUT_PEAKS = ("event_type_proportion", "object_tags_in_peak_frame", "peak_sentiment")
_OF_VIDEO = " of "  # between the name of a record and its video
_IMAGE, _QUESTION, _SIMILAR = "<|vision_start|>", "<|question|>", "<|similar_event|>"


def parse(path: str, data: bytes) -> Iterator[RawEvent | RawQuestion]:
    """Raw events and questions of one file.

    Raises:
        MalformedFileError: not text.
    """
    for row, record, problem in read_records(path, data):
        name = f"{stem(path)}#{row}"
        own = record is not None and _TIMES in record
        parsed = problem or (_parse_record if own else _parse_line)(name, row, record or {})
        if isinstance(parsed, str):  # all of its events are lost
            lost = RawEvent(name, row, None, None, None, None, record, parsed)
            yield from [lost] * max(1, _num_events(record or {}))
        else:
            yield from parsed


def _num_events(record: dict) -> int:
    """The number of events in a record that cannot be read."""
    times, prompt = record.get(_TIMES), record.get("prompt_text")
    if isinstance(times, list):
        return len(times)
    return len(_EVENT.findall(prompt)) if isinstance(prompt, str) else 0


def _parse_record(name: str, row: int, record: dict) -> str | list[RawEvent | RawQuestion]:
    """The comments and the question of a record of the benchmark, or its problem."""
    times, question = record[_TIMES], record.get("question")
    key = next((key for key in ("comment_sequence", "sentiment_sequence") if key in record), None)
    texts = record[key] if key else [""] * len(times) if isinstance(times, list) else None
    if not isinstance(times, list) or not isinstance(texts, list) or not times:
        return f"{_TIMES} and {key} must be lists with at least one value"
    if len(times) != len(texts):
        return f"{len(times)} values in {_TIMES}, {len(texts)} in {key}"
    if not isinstance(question, str):
        return "question must be a string"
    answer = next((record[key] for key in _ANSWERS if record.get(key) is not None), None)
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(_is_plain(value) for value in answers):
        return f"no answer: {', '.join(_ANSWERS)} must be a string, a number or a list of them"
    truth = ", ".join(map(str, answers))
    about = _ABOUT + (_ABOUT_PEAKS if _ABOUT_PEAKS[0] in record else ())
    asked = [
        question,
        *(
            f"{key}: {record[key]}"
            for key in about
            if record.get(key) is not None and str(record[key]) != truth
        ),
    ]
    try:
        "".join((*asked, truth)).encode()
    except UnicodeEncodeError as error:
        return f"question and answer: {error}"
    video = record.get("video")
    name = f"{name}{_OF_VIDEO}{video}" if isinstance(video, str) and video else name
    found: list[RawEvent | RawQuestion] = [
        RawEvent(
            name,
            row,
            _seconds(time),
            0,
            str(text) if _is_plain(text) else text,
            None,
            {"event": place, "time": time, "text": text},
        )
        for place, (time, text) in enumerate(zip(times, texts, strict=True))
    ]
    return [*found, RawQuestion(name, "\n".join(asked), truth)]


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _seconds(time: object) -> object:
    """A time, also one that is written as text; anything else unchanged."""
    try:
        return float(time) if isinstance(time, str) else time
    except ValueError:
        return time


def _parse_line(name: str, row: int, record: dict) -> str | list[RawEvent | RawQuestion]:
    """The events and the question of a line, or what is wrong with it."""
    prompt, response = record.get("prompt_text"), record.get("response_text")
    images = record.get("prompt_image_paths") or []
    if not isinstance(prompt, str) or not isinstance(response, str):
        return "prompt_text and response_text must be strings"
    try:
        (prompt + response).encode()
    except UnicodeEncodeError as error:
        return f"prompt_text and response_text: {error}"
    if not isinstance(images, list) or not all(isinstance(path, str) for path in images):
        return "prompt_image_paths must be a list of strings"
    if _SIMILAR in prompt:
        return "the prompt has compressed events, whose times are lost"
    blocks = list(_EVENT.finditer(prompt))
    if not blocks:
        return "the prompt has no events"
    inside = sum(_IMAGE in block[1] for block in blocks)
    if not prompt.count(_IMAGE) == len(images) == inside:
        return f"{len(images)} images, {inside} of {prompt.count(_IMAGE)} placeholders in events"
    found: list[RawEvent | RawQuestion] = []
    time, paths = 0.0, iter(images)
    for place, block in enumerate(blocks):
        code, kind, text = _TIME.search(block[1]), _TYPE.search(block[1]), _TEXT.search(block[1])
        values = [int(value) for value in _BYTE.findall(code[1])] if code else []
        if text is None or not values or max(values) > 255:
            return f"event {place} lacks a time or a text"
        interval = float(decode_intervals(np.array([values], dtype=np.uint8))[0])
        if not math.isfinite(interval) or interval < 0:
            return f"event {place} has the interval {interval}"
        time += interval if place else 0.0
        if kind and int(kind[1]) >= MAX_TYPES:
            return f"event {place} has the type {kind[1]}"
        image = next(paths) if _IMAGE in block[1] else None
        event = {"event": place, "interval": interval, "text": text[1]}
        found.append(RawEvent(name, row, time, int(kind[1]) if kind else 0, text[1], image, event))
    found.append(RawQuestion(name, _question(prompt, blocks[-1].end()), _ENDS.sub("", response)))
    return found


def _question(prompt: str, end_of_events: int) -> str:
    """What is asked: after the question token, or after the last event, to the end of the turn."""
    _, marked, after = prompt.rpartition(_QUESTION)
    return _ENDS.split(after if marked else prompt[end_of_events:], maxsplit=1)[0].strip()


def _together(sequence: EventSequence) -> str:
    """The video or, where none is named, the events: one answer may reveal that of another line."""
    _, named, video = sequence.sequence_id.partition(_OF_VIDEO)
    if named:
        return video
    return repr((sequence.times.tolist(), sequence.types.tolist(), sequence.texts, sequence.images))


DANMAKU_QA = SourceReader((".jsonl", ".json"), parse, seconds_per_unit=1.0, split_by=_together)
