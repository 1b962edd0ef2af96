"""Event files of the sources' kinds, in the forms that tests of several modules read."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable

import pyarrow as pa

from tests.helpers.tables import arrow_bytes, csv_bytes, json_lines, parquet_bytes


def pack_zstd(data: bytes) -> bytes:
    """Pack by zstd, in one frame."""
    return pa.Codec("zstd").compress(data, asbytes=True)  # pyright: ignore[reportReturnType]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": pack_zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
"""Functions that pack a file, by suffix."""

CAB_ROWS = [
    {"cab_id": "b", "unix_time": 20.5, "event_type": "dropoff"},
    {"cab_id": "a", "unix_time": 10, "event_type": "pickup"},
    {"cab_id": "b", "unix_time": 11, "event_type": "pickup"},
]
CAB_FILES = {
    "x/t.csv": csv_bytes(CAB_ROWS),
    # without a time stamp, so that all workers of pytest-xdist collect the same tests
    "x/t.csv.gz": gzip.compress(csv_bytes(CAB_ROWS), mtime=0),
    "x/t.jsonl": json_lines(CAB_ROWS),
    "x/t.jsonl.gz": gzip.compress(json_lines(CAB_ROWS), mtime=0),
    "x/t.jsonl.xz": lzma.compress(json_lines(CAB_ROWS)),
    "x/t.csv.bz2": bz2.compress(csv_bytes(CAB_ROWS)),
    "x/t.csv.zst": pack_zstd(csv_bytes(CAB_ROWS)),
    "x/t.json": json.dumps(CAB_ROWS).encode(),
    "x/t.parquet": parquet_bytes(CAB_ROWS),
    "x/t.arrow": arrow_bytes(CAB_ROWS),
}
"""The rows ``CAB_ROWS`` in files of all forms, by name."""

QA_HISTORY = (
    "<|im_start|>user\nHistory:\n"
    "<|start_of_event|> <|time_start|><|byte_0|><|byte_0|><|byte_0|><|byte_0|><|time_end|> "
    "<|text_start|>first<|text_end|> <|vision_start|><|image_pad|><|vision_end|> "
    "<|end_of_event|>\n"
    "<|start_of_event|> <|time_start|><|byte_63|><|byte_192|><|byte_0|><|byte_0|><|time_end|> "
    "<|type_start|><|type_4|><|type_end|> <|text_start|>second<|text_end|> <|end_of_event|>\n"
)
QA_PROMPT = {
    "prompt_text": QA_HISTORY + "<|question|>How many peaks?<|im_end|>\n<|im_start|>assistant\n",
    "response_text": "3<|im_end|>",
    "prompt_image_paths": ["frames/1.jpg"],
}
"""A question of DanmakuTPP-QA as a prompt of MM-TPP."""

QA_RECORD = {
    "video": "BV1x",
    "question": "Which two types come next?",
    "time_window": [0, 60],
    "comment_time_sequence": [4.5, "1.25", 4.5],
    "comment_sequence": ["second", "first", "third"],
    "ground_truth": ["humor/meme", "question"],
}
"""A question of DanmakuTPP-QA."""

EASYTPP_EVENTS = [
    {"time_since_start": 0.0, "time_since_last_event": 0.0, "type_event": 1},
    {"time_since_start": 2.0, "time_since_last_event": 2.0, "type_event": 0},
]
