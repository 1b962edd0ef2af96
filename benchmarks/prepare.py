"""How fast ``prepare``, planning and assembling are, from a real S3 server, and what bounds them.

    make bench-prepare                       5 M events, 50,000 frames: about half an hour
    python -m benchmarks.prepare COPIES      so many copies of the real videos instead of 39

Needs MMTPP_TEST_DATA for the danmaku. Prints a table and writes it to ``prepare.md`` beside this
file. Fails when a floor is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import psutil
import ray

from benchmarks.published import PublishedPipeline
from benchmarks.replicate import publish, read_videos
from cluster.local import down, up
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data import encode as steps
from mmtpp.data.assemble import Assembler
from mmtpp.data.plan import make_plan, samples_table
from mmtpp.data.prepare import prepare
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.model.processor import decode_image
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import ahead, exists, join, list_files, read_bytes, write_bytes
from tests.qwen_vocabulary import qwen_tokenizer_json, qwen_vocabulary

COPIES, FEW_COPIES = 39, 8  # 5.08 M and 1.04 M events
IMAGE_PX, IMAGE_TOKENS, MAX_TOKENS = 84, 9, 4096
DELTA, OTHER_DELTA = 0.2, 0.5
EPOCHS = 3
SAMPLE_FILES, SAMPLE_IMAGE_FILES = 6, 1  # of the published style, scaled up
RESULT = Path(__file__).with_name("prepare.md")
BUCKET = "s3://mmtpp/bench"


@dataclass(frozen=True)
class Preparation:
    """One run of ``prepare``: seconds in all and by step, peak memory in bytes, and the server's
    processor seconds."""

    workers: int
    seconds: float
    by_step: dict[str, float]
    memory: int
    server_seconds: float


def configuration(source: str, store: str, *, workers: int = 0, delta: float = DELTA) -> RunConfig:
    """Qwen's tokenizer, frames of 84 pixels, the paper's layout and context."""
    return config_from_tree(
        {
            "source": {"uri": source, "max_workers": workers},
            "store": {"uri": store, "cache_gib": 0},
            "split": {"validation_fraction": 0.0, "test_fraction": 0.0},
            "model": {"path": f"{BUCKET}/model"},
            "template": {"image_px": IMAGE_PX, "images": "per_event"},
            "compression": {"delta": delta},
            "window": {"max_tokens": MAX_TOKENS},
        }
    )


class MemoryWatch(threading.Thread):
    """Samples the memory that belongs to this process and to Ray's workers alone."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Until ``stop``."""
        while not self._stop_event.wait(0.5):
            total = 0
            for process in psutil.process_iter(["pid", "name", "cmdline"]):
                command = " ".join(process.info["cmdline"] or [])
                if process.pid == os.getpid() or "ray::" in command:
                    try:
                        total += process.memory_full_info().uss
                    except psutil.NoSuchProcess:
                        continue
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        """The peak in bytes."""
        self._stop_event.set()
        self.join()
        return self.peak


@contextmanager
def steps_timed() -> Iterator[dict[str, float]]:
    """Seconds of every step of ``encode``, by the name of its actor."""
    seconds: dict[str, float] = {}
    whole = steps._Run._map

    def timed(self: steps._Run, actor: type, items: list[dict], arguments: tuple) -> Iterator[dict]:
        started = time.perf_counter()
        yield from whole(self, actor, items, arguments)
        seconds[actor.__name__] = time.perf_counter() - started

    steps._Run._map = timed
    try:
        yield seconds
    finally:
        steps._Run._map = whole


def server_seconds() -> float:
    """Processor seconds of the S3 server so far."""
    servers = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "weed"]
    return sum(sum(each.cpu_times()[:2]) for each in servers)


def run_prepare(source: str, store: str, *, workers: int) -> Preparation:
    """Prepare from nothing."""
    before, watch = server_seconds(), MemoryWatch()
    watch.start()
    started = time.perf_counter()
    with steps_timed() as by_step:
        prepare(configuration(source, store, workers=workers))
    seconds = time.perf_counter() - started
    done = Preparation(workers, seconds, by_step, watch.stop(), server_seconds() - before)
    print(f"{store}: {workers} workers, {seconds:.1f} s, {by_step}, {done.memory / 2**20:.0f} MiB")
    return done


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

    files = timed("event files, MB/s", lambda: read([info.path for info in infos]), size)
    pictures = timed("image files, MB/s", lambda: read([info.path for info in images]), size)
    amount = size(files)
    timed("JSON parse (orjson), MB/s", lambda: [len(orjson.loads(f)) for f in files],
          lambda _: amount)  # fmt: skip
    texts = {event["text"] for file in files for event in json.loads(file)}
    timed("BPE of distinct texts, texts/s", lambda: qwen_vocabulary().encode_texts(sorted(texts)),
          lambda _: len(texts))  # fmt: skip
    timed("JPEG decode and resize, frames/s",
          lambda: [decode_image(p, image_px=IMAGE_PX, max_pixels=10**8) for p in pictures[:500]],
          lambda _: 500)  # fmt: skip
    return found


def published_rates(source: str, plain: str) -> tuple[float, float, float, float]:
    """Seconds an event of the published style on a sample: once and for an epoch, without and with
    images."""
    rates = []
    for uri, count in ((plain, SAMPLE_FILES), (source, SAMPLE_IMAGE_FILES)):
        pipeline = PublishedPipeline(
            lambda path, uri=uri: read_bytes(join(uri, path)),
            lambda path, uri=uri: exists(join(uri, path)) if path else False,
            max_tokens=MAX_TOKENS, image_tokens=IMAGE_TOKENS, image_px=IMAGE_PX,
        )  # fmt: skip
        every = list_files(uri, ".json")
        paths = [info.base_name for info in every[:: len(every) // count][:count]]
        events = sum(len(json.loads(read_bytes(join(uri, path)))) for path in paths)
        started = time.perf_counter()
        samples = [sample for path in paths for sample in pipeline.samples(path, DELTA)]
        once = time.perf_counter() - started
        started = time.perf_counter()
        pipeline.epoch(samples)
        epoch = time.perf_counter() - started
        rates += [once / events, epoch / events]
        print(f"published style on {events} events of {uri}: {once:.1f} s + {epoch:.1f} s")
    return rates[0], rates[1], rates[2], rates[3]


def plan_and_assemble(source: str, store: str) -> dict[str, float]:
    """Seconds of planning two Deltas, and of one epoch assembled in this process."""
    found: dict[str, float] = {}
    manifest = load_manifest(store)
    ids = store_vocabulary(store, manifest).token_ids()
    for name, delta in (("plan", DELTA), ("plan another Delta", OTHER_DELTA)):
        settings = assemble_settings(configuration(source, store, delta=delta), manifest,
                                     split="train")  # fmt: skip
        started = time.perf_counter()
        plan = make_plan(settings, ids)
        found[name] = time.perf_counter() - started
    settings = replace(settings, compression=replace(settings.compression, delta=DELTA))
    plan = make_plan(settings, ids)
    order = np.random.default_rng(0).permutation(len(plan.samples))
    assembler = Assembler(settings, ids)
    tokens, started = 0, time.perf_counter()
    for first in range(0, len(order), 16):
        table = assembler(samples_table(plan, order[first : first + 16]))
        tokens += len(table["input_ids"].combine_chunks().flatten())
    found["assemble"] = time.perf_counter() - started
    found["tokens"] = tokens
    # the same samples in the order of the store: the row groups are in memory, so no reading
    few = np.arange(min(len(order), 320))
    tables = [samples_table(plan, few[first : first + 16]) for first in range(0, len(few), 16)]
    for table in tables[:2]:
        assembler(table)
    rates = []
    for table in tables:
        assembler(table)  # reads
        started = time.perf_counter()
        done = assembler(table)
        count = len(done["input_ids"].combine_chunks().flatten())
        rates.append(count / (time.perf_counter() - started))
    found["tokens/s in memory"] = float(np.median(rates))
    return found


def _burn(_: int) -> float:
    started = time.perf_counter()
    data = json.dumps([{"time": 0.5, "text": "x" * 20}] * 5000)
    for _ in range(150):
        json.loads(data)
    return time.perf_counter() - started


def machine_scaling() -> float:
    """Efficiency of two processes that share nothing but the machine, against one."""
    ratios = []
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_burn, range(2)))
        for _ in range(3):
            alone = next(iter(pool.map(_burn, [0])))
            together = max(pool.map(_burn, [0, 0]))
            ratios.append(alone / together)
    return float(np.median(ratios))


def main(argv: list[str]) -> int:
    """Measure, print, write."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    data = os.environ.get("MMTPP_TEST_DATA", "")
    folder = Path(data) / "danmaku_bilibili_xml"
    if not data or not folder.is_dir():
        print("MMTPP_TEST_DATA does not name a folder with danmaku_bilibili_xml", file=sys.stderr)
        return 2
    copies = int(argv[0]) if argv else COPIES
    with tempfile.TemporaryDirectory() as home:
        stack = up(Path(home))
        try:
            os.environ.update(stack.environment())
            return _measure(folder, copies)
        finally:
            ray.shutdown()
            down(Path(home))


def _measure(folder: Path, copies: int) -> int:
    videos = read_videos(folder)
    few = max(1, copies * FEW_COPIES // COPIES)
    write_bytes(f"{BUCKET}/model/tokenizer.json", qwen_tokenizer_json().encode())
    source, plain, small = f"{BUCKET}/raw", f"{BUCKET}/plain", f"{BUCKET}/small"
    started = time.perf_counter()
    whole = publish(source, videos, range(copies), with_images=True)
    publish(plain, videos, range(copies), with_images=False)
    publish(small, videos, range(few), with_images=True)
    print(f"{whole} published in {time.perf_counter() - started:.0f} s")
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}}, logging_level="WARNING")
    scaling = machine_scaling()
    alone = limits(source)
    print(scaling, alone)
    published = published_rates(source, plain)
    store = f"{BUCKET}/store"
    run_prepare(small, f"{store}-warm", workers=2)  # imports, page cache
    runs = {
        (uri, workers): run_prepare(f"{BUCKET}/{uri}", f"{store}-{uri}-{workers}", workers=workers)
        for uri in ("plain", "raw", "small")
        for workers in ((2,) if uri == "small" else (1, 2))
    }
    after = {uri: plan_and_assemble(f"{BUCKET}/{uri}", f"{store}-{uri}-1") for uri in
             ("plain", "raw")}  # fmt: skip
    print(after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
