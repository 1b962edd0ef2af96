"""DanmakuTPP-QA as MM-TPP fine-tunes on it: JSON lines of a prompt, its images and a response.

    {"prompt_text": "...<|start_of_event|> <|time_start|><|byte_0|>...<|end_of_event|>...
                     <|question|>What comes next?<|im_end|>\\n<|im_start|>assistant\\n",
     "response_text": "...<|im_end|>", "prompt_image_paths": ["frames/1.jpg", ...]}

The prompt spells its events in the published template. A line is a sequence: its events with times
counted from the first, and one question with its answer. Events of the prompt that are compressed
have lost their time, text and image, so a line with any is rejected, not guessed at. Lines with the
same events are in the same split.
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
_IMAGE, _QUESTION, _SIMILAR = "<|vision_start|>", "<|question|>", "<|similar_event|>"


def parse(path: str, data: bytes) -> Iterator[RawEvent | RawQuestion]:
    """Raw events and questions of one file.

    Raises:
        MalformedFileError: not text.
    """
    for row, record, problem in read_records(path, data):
        name = f"{stem(path)}#{row}"
        parsed = problem or _parse_line(name, row, record or {})
        if isinstance(parsed, str):
            yield RawEvent(name, row, None, None, None, None, record, parsed)
        else:
            yield from parsed


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


def _history(sequence: EventSequence) -> str:
    """The events: several lines ask about the same, and an answer may give away another's."""
    return repr((sequence.times.tolist(), sequence.types.tolist(), sequence.texts, sequence.images))


DANMAKU_QA = SourceReader((".jsonl",), parse, seconds_per_unit=1.0, split_by=_history)
