"""Speed of single parts of ``prepare`` outside the pipeline."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.model.processor import decode_image
from mmtpp.storage.paths import join, list_files, prefetch, read_bytes
from tests.helpers.qwen_vocabulary import qwen_vocabulary

IMAGE_PX = 84
CONVERT = "JSON to Parquet of time, type and text (orjson, pyarrow), MB"
T = TypeVar("T")


def limits(source: str, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Speed of this process at each part, in units per second of a clock."""
    infos = list_files(join(source), ".json")[:150]
    images = list_files(join(source, "frames"), ".jpg")[:2000]
    rates: dict[str, float] = {}

    def read(paths: list[str]) -> list[bytes]:
        with ThreadPoolExecutor(16) as pool:
            return list(prefetch(pool, lambda path: read_bytes(f"s3://{path}"), paths, depth=16))

    def timed(name: str, work: Callable[[], T], amount: Callable[[T], float]) -> T:
        started = clock()
        result = work()
        rates[name] = amount(result) / (clock() - started)
        return result

    def size(files: list[bytes]) -> float:
        return sum(map(len, files)) / 1e6

    files = timed("event files, MB", lambda: read([info.path for info in infos]), size)
    pictures = timed("image files, MB", lambda: read([info.path for info in images]), size)
    amount = size(files)
    timed(
        "JSON parse (orjson), MB", lambda: [len(orjson.loads(f)) for f in files], lambda _: amount
    )
    timed(CONVERT, lambda: [_convert(file) for file in files], lambda _: amount)
    texts = {event["text"] for file in files for event in json.loads(file)}
    vocabulary = qwen_vocabulary()
    timed(
        "BPE, distinct texts", lambda: vocabulary.encode_texts(sorted(texts)), lambda _: len(texts)
    )
    timed(
        "JPEG decode and resize, frames",
        lambda: [decode_image(p, image_px=IMAGE_PX, max_pixels=10**8) for p in pictures[:500]],
        lambda _: 500,
    )
    return rates


def busy_limits(source: str) -> dict[str, float]:
    """Speed at each part, in units per CPU second, while another process does the same.

    A core is slower while the other one works, as it does while ``prepare`` runs.
    """
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(limits, source, time.process_time) for _ in range(2)]
        first, second = (task.result() for task in tasks)
    return {name: (rate + second[name]) / 2 for name, rate in first.items()}


def _convert(file: bytes) -> int:
    """Convert the events of a file with the two libraries alone; returns the size of the result."""
    events = orjson.loads(file)
    table = pa.table(
        {
            "time": pa.array([event["time"] for event in events], pa.float64()),
            "type": pa.array([event["TPP_attribute"]["event_type"] for event in events]),
            "text": pa.array([event["text"] for event in events]),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.tell()
