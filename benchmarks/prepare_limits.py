"""What the parts of ``prepare`` reach alone, and what two processes reach that share nothing."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from multiprocessing import get_context

import orjson

from mmtpp.data.frames import DecodeImages, num_blocks
from mmtpp.data.layout import EncodeSettings
from mmtpp.data.reading import ReadShard
from mmtpp.model.processor import decode_image
from mmtpp.model.vocabulary import TOKENIZER_FILE
from mmtpp.storage.paths import ahead, join, list_files, read_bytes, write_bytes
from tests.qwen_vocabulary import qwen_tokenizer_json, qwen_vocabulary
from tests.steps import SETTINGS

IMAGE_PX = 84
FILES_PER_SHARD = 70  # about 16 MiB, as in encode
TURNS = 5
SHARDS = {True: 1, False: 8}  # of a turn, with and without images: some seconds each


def limits(source: str) -> dict[str, float]:
    """What one process reaches at the parts alone, in units a second."""
    infos = list_files(join(source), ".json")[:150]
    images = list_files(join(source, "frames"), ".jpg")[:2000]
    found: dict[str, float] = {}

    def read(paths: list[str]) -> list[bytes]:
        with ThreadPoolExecutor(16) as pool:
            return list(ahead(pool, lambda path: read_bytes(f"s3://{path}"), paths, depth=16))

    def timed(name: str, work: Callable[[], object], amount: Callable[[object], float]) -> object:
        started = time.perf_counter()
        result = work()
        found[name] = amount(result) / (time.perf_counter() - started)
        return result

    def size(files: list[bytes]) -> float:
        return sum(map(len, files)) / 1e6

    files = timed("event files, MB", lambda: read([info.path for info in infos]), size)
    pictures = timed("image files, MB", lambda: read([info.path for info in images]), size)
    amount = size(files)
    timed("JSON parse (orjson), MB", lambda: [len(orjson.loads(f)) for f in files],
          lambda _: amount)  # fmt: skip
    texts = {event["text"] for file in files for event in json.loads(file)}
    vocabulary = qwen_vocabulary()
    timed("BPE, distinct texts", lambda: vocabulary.encode_texts(sorted(texts)),
          lambda _: len(texts))  # fmt: skip
    timed("JPEG decode and resize, frames",
          lambda: [decode_image(p, image_px=IMAGE_PX, max_pixels=10**8) for p in pictures[:500]],
          lambda _: 500)  # fmt: skip
    return found


def scaling(uri: str, folder: str, *, with_images: bool) -> float:
    """Efficiency of two processes without Ray against one, at the very work of the steps.

    Both are warm, and read and write other files of the same server: what this machine allows.

    Args:
        uri: of the source.
        folder: where to write.
        with_images: decode them too.
    """
    write_bytes(join(folder, TOKENIZER_FILE), qwen_tokenizer_json().encode())
    names = [info.base_name for info in list_files(uri, ".json")]
    pieces = TURNS * SHARDS[with_images]
    size = min(FILES_PER_SHARD, len(names) // pieces)
    settings = EncodeSettings(**{**SETTINGS, "source_uri": uri, "image_px": IMAGE_PX})

    def work(turn: int) -> tuple:
        shards = {at: names[at * size : (at + 1) * size] for at in range(turn, pieces, TURNS)}
        return settings, folder, shards

    context = get_context("spawn")
    with ProcessPoolExecutor(1, context) as one, ProcessPoolExecutor(1, context) as other:
        for warm in [
            pool.submit(_run_shards, *work(turn)) for turn, pool in enumerate((one, other))
        ]:
            warm.result()
        alone = one.submit(_run_shards, *work(2)).result()
        both = [pool.submit(_run_shards, *work(turn)) for turn, pool in ((3, one), (4, other))]
        return alone / max(each.result() for each in both)


@cache
def _steps(settings: EncodeSettings, folder: str) -> tuple[ReadShard, DecodeImages]:
    return ReadShard(settings, folder), DecodeImages(settings, folder)


def _run_shards(settings: EncodeSettings, folder: str, shards: dict[int, list[str]]) -> float:
    """Seconds of the first two steps."""
    read, decode = _steps(settings, folder)
    started = time.perf_counter()
    for shard, paths in shards.items():
        row = read({"shard": shard, "paths": paths})
        rows = [row, *(decode({"shard": shard, "block": block})
                       for block in range(num_blocks(row["num_images"])))]  # fmt: skip
        if problems := [row["problem"] for row in rows if row["problem"]]:
            raise RuntimeError(problems[0])
    return time.perf_counter() - started
