"""DanmakuTPP-QA in two forms: the JSON of the benchmark, and the prompts that MM-TPP trains on.

The JSON of the benchmark is a list of records, a file for each task and split:

    [{"video": "BV1x", "question": "What comes next?", "time_window": [0, 60],
      "comment_time_sequence": [0.5, 3.25, ...], "comment_sequence": ["hello", ...],
      "ground_truth": "3.5"}, ...]

A record is a sequence. Its events are the comments, with their times and the type 0. It has one
question with its answer. The answer of task 1 is ``num_peaks``, the answer of task 9 is
``sentiment_analysis_report``. A list of answers is joined by commas. If a record has no comments,
their sentiments (``sentiment_sequence``) are the texts. The question is followed by
``time_window``, ``next_peak_time`` and, if the record describes a peak, by this description. The
frames of a time window belong to no event and are not read. Records of one video are in the same
split.

The form of MM-TPP is JSON lines of a prompt, its images and a response:

    {"prompt_text": "...<|start_of_event|> <|time_start|><|byte_0|>...<|end_of_event|>...
                     <|question|>What comes next?<|im_end|>\\n<|im_start|>assistant\\n",
     "response_text": "...<|im_end|>", "prompt_image_paths": ["frames/1.jpg", ...]}

The prompt contains its events in the published template. A line is a sequence. Its times count from
the first event. It has one question with its answer. Compressed events of a prompt have lost their
time, text and image; a line with such an event is rejected. Lines with the same events are in the
same split.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmtpp.core.events import MAX_TYPES, EventSequence
from mmtpp.core.representation.timecode import decode_intervals
from mmtpp.data.sources.event_files import stem
from mmtpp.data.sources.reader import RawEvent, RawQuestion, SourceReader, malformed_event
from mmtpp.data.sources.tables import read_records

_EVENT = re.compile(r"<\|start_of_event\|>(.*?)<\|end_of_event\|>", re.DOTALL)
_TIME = re.compile(r"<\|time_start\|>((?:<\|byte_\d{1,3}\|>){4})<\|time_end\|>")
_BYTE = re.compile(r"<\|byte_(\d{1,3})\|>")
_TYPE = re.compile(r"<\|type_start\|><\|type_(\d{1,3})\|><\|type_end\|>")
_TEXT = re.compile(r"<\|text_start\|>(.*?)<\|text_end\|>", re.DOTALL)
_ENDS = re.compile(r"<\|(?:im_end|endoftext)\|>")
_TIMES = "comment_time_sequence"
_ANSWERS = ("ground_truth", "num_peaks", "sentiment_analysis_report")
_CONTEXT = ("time_window", "next_peak_time")
_PEAK_CONTEXT = ("event_type_proportion", "object_tags_in_peak_frame", "peak_sentiment")
_OF_VIDEO = " of "  # between the id of a record and its video
_IMAGE, _QUESTION, _SIMILAR = "<|vision_start|>", "<|question|>", "<|similar_event|>"


class _MalformedRecordError(ValueError):
    """A record without readable events, question or answer; the message is the reason."""


class _Asked(NamedTuple):
    """The question of a record and its answer."""

    question: str
    answer: str


def parse(path: str, data: bytes) -> Iterator[RawEvent | RawQuestion]:
    """Parse the raw events and questions of one file.

    Raises:
        MalformedFileError: The file is not text.
    """
    for row, values, problem, line in read_records(path, data):
        sequence, record = f"{stem(path)}#{row}", values or {}
        parse_record = _parse_benchmark_record if _TIMES in record else _parse_prompt
        try:
            if problem:
                raise _MalformedRecordError(problem)
            items = parse_record(sequence, row, record)
        except _MalformedRecordError as error:
            lost = malformed_event(sequence, row, values, str(error))
            lost.line = line
            yield from [lost] * max(1, _num_events(record))  # all events of the record are lost
        else:
            for item in items:
                if isinstance(item, RawEvent):
                    item.line = line
                yield item


def _num_events(record: dict) -> int:
    """Number of events in a malformed record."""
    times, prompt = record.get(_TIMES), record.get("prompt_text")
    if isinstance(times, list):
        return len(times)
    return len(_EVENT.findall(prompt)) if isinstance(prompt, str) else 0


def _parse_benchmark_record(sequence: str, row: int, record: dict) -> list[RawEvent | RawQuestion]:
    """The comments and the question of a record of the benchmark.

    Raises:
        _MalformedRecordError: The comments, the question or the answer cannot be read.
    """
    times, texts = _comments(record)
    asked = _question_of_record(record)
    video = record.get("video")
    if isinstance(video, str) and video:
        sequence = f"{sequence}{_OF_VIDEO}{video}"
    events: list[RawEvent | RawQuestion] = [
        RawEvent(
            sequence,
            row,
            _seconds(time),
            0,
            str(text) if _is_plain(text) else text,
            image=None,
            record={"event": place, "time": time, "text": text},
        )
        for place, (time, text) in enumerate(zip(times, texts, strict=True))
    ]
    return [*events, RawQuestion(sequence, asked.question, asked.answer)]


def _comments(record: dict) -> tuple[list, list]:
    """Times and texts of the comments of a record."""
    times = record[_TIMES]
    key = next((key for key in ("comment_sequence", "sentiment_sequence") if key in record), None)
    texts = record[key] if key else [""] * len(times) if isinstance(times, list) else None
    if not isinstance(times, list) or not isinstance(texts, list) or not times:
        raise _MalformedRecordError(f"{_TIMES} and {key} must be lists with at least one value")
    if len(times) != len(texts):
        raise _MalformedRecordError(f"{len(times)} values in {_TIMES}, {len(texts)} in {key}")
    return times, texts


def _question_of_record(record: dict) -> _Asked:
    """The question of a record, followed by its context, and the answer."""
    question = record.get("question")
    if not isinstance(question, str):
        raise _MalformedRecordError("question must be a string")
    value = next((record[key] for key in _ANSWERS if record.get(key) is not None), None)
    values = value if isinstance(value, list) else [value]
    if not values or not all(_is_plain(value) for value in values):
        raise _MalformedRecordError(
            f"no answer: {', '.join(_ANSWERS)} must be a string, a number or a list of them"
        )
    answer = ", ".join(map(str, values))
    keys = _CONTEXT + (_PEAK_CONTEXT if _PEAK_CONTEXT[0] in record else ())
    context = [
        f"{key}: {record[key]}"
        for key in keys
        if record.get(key) is not None and str(record[key]) != answer
    ]
    lines = [question, *context]
    try:
        "".join((*lines, answer)).encode()
    except UnicodeEncodeError as error:
        raise _MalformedRecordError(f"question and answer: {error}") from error
    return _Asked("\n".join(lines), answer)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _seconds(time: object) -> object:
    """A number written as text as a number; any other value unchanged."""
    try:
        return float(time) if isinstance(time, str) else time
    except ValueError:
        return time


def _parse_prompt(sequence: str, row: int, record: dict) -> list[RawEvent | RawQuestion]:
    """The events and the question of a prompt with its response.

    Raises:
        _MalformedRecordError: The prompt, its images or its events cannot be read.
    """
    prompt, response = record.get("prompt_text"), record.get("response_text")
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise _MalformedRecordError("prompt_text and response_text must be strings")
    try:
        (prompt + response).encode()
    except UnicodeEncodeError as error:
        raise _MalformedRecordError(f"prompt_text and response_text: {error}") from error
    images = _prompt_images(record)
    blocks = _event_blocks(prompt, len(images))
    items: list[RawEvent | RawQuestion] = []
    time, paths = 0.0, iter(images)
    for place, block in enumerate(blocks):
        kind, text = _TYPE.search(block[1]), _TEXT.search(block[1])
        if text is None:
            raise _MalformedRecordError(f"event {place + 1} lacks a time or a text")
        interval = _interval(place, block[1])
        time += interval if place else 0.0
        if kind and int(kind[1]) >= MAX_TYPES:
            raise _MalformedRecordError(f"event {place + 1} has the type {kind[1]}")
        image = next(paths) if _IMAGE in block[1] else None
        code = int(kind[1]) if kind else 0
        values = {"event": place, "interval": interval, "text": text[1]}
        items.append(RawEvent(sequence, row, time, code, text[1], image, values))
    question = _question_of_prompt(prompt, blocks[-1].end())
    return [*items, RawQuestion(sequence, question, _ENDS.sub("", response))]


def _prompt_images(record: dict) -> list[str]:
    """Paths of the images of a prompt."""
    images = record.get("prompt_image_paths") or []
    if not isinstance(images, list) or not all(isinstance(path, str) for path in images):
        raise _MalformedRecordError("prompt_image_paths must be a list of strings")
    return images


def _event_blocks(prompt: str, num_images: int) -> list[re.Match[str]]:
    """The events of a prompt, as matches of their text."""
    if _SIMILAR in prompt:
        raise _MalformedRecordError("the prompt has compressed events, whose times are lost")
    blocks = list(_EVENT.finditer(prompt))
    if not blocks:
        raise _MalformedRecordError("the prompt has no events")
    inside = sum(_IMAGE in block[1] for block in blocks)
    if not prompt.count(_IMAGE) == num_images == inside:
        raise _MalformedRecordError(
            f"{num_images} images, but {inside} of {prompt.count(_IMAGE)} placeholders are in "
            "events"
        )
    return blocks


def _interval(place: int, block: str) -> float:
    """The interval of an event, from the bytes of its float32."""
    code = _TIME.search(block)
    values = [int(value) for value in _BYTE.findall(code[1])] if code else []
    if not values or max(values) > 255:
        raise _MalformedRecordError(f"event {place + 1} lacks a time or a text")
    interval = float(decode_intervals(np.array([values], dtype=np.uint8))[0])
    if not math.isfinite(interval) or interval < 0:
        raise _MalformedRecordError(f"event {place + 1} has the interval {interval}")
    return interval


def _question_of_prompt(prompt: str, end_of_events: int) -> str:
    """The text after the question token, or else after the last event, to the end of the turn."""
    _, marker, after = prompt.rpartition(_QUESTION)
    return _ENDS.split(after if marker else prompt[end_of_events:], maxsplit=1)[0].strip()


def _split_key(sequence: EventSequence) -> str:
    """The video, or the events if no video is named. One answer may reveal another one's answer."""
    _, separator, video = sequence.sequence_id.partition(_OF_VIDEO)
    if separator:
        return video
    return repr((sequence.times.tolist(), sequence.types.tolist(), sequence.texts, sequence.images))


DANMAKU_QA = SourceReader((".jsonl", ".json"), parse, seconds_per_unit=1.0, split_key=_split_key)
