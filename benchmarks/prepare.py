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

from benchmarks.measure import machine
from benchmarks.published import PublishedPipeline
from benchmarks.replicate import Published, publish, read_videos
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
    uris = {name: f"{BUCKET}/{name}" for name in ("images", "plain", "few")}
    started = time.perf_counter()
    sizes = {
        "images": publish(uris["images"], videos, range(copies), with_images=True),
        "plain": publish(uris["plain"], videos, range(copies), with_images=False),
        "few": publish(uris["few"], videos, range(few), with_images=True),
    }
    print(f"{sizes} published in {time.perf_counter() - started:.0f} s", flush=True)
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}}, logging_level="WARNING")
    scaling = machine_scaling()
    alone = limits(uris["images"])
    published = published_rates(uris["images"], uris["plain"])
    store = f"{BUCKET}/store"
    run_prepare(uris["few"], f"{store}-warm", workers=2)  # imports, page cache
    runs = {
        (name, workers): run_prepare(uris[name], f"{store}-{name}-{workers}", workers=workers)
        for name, workers in (("plain", 1), ("plain", 2), ("images", 1), ("images", 2), ("few", 2))
    }
    after = {name: plan_and_assemble(uris[name], f"{store}-{name}-1")
             for name in ("plain", "images")}  # fmt: skip
    print(scaling, alone, published, after, flush=True)
    text, missed = report(sizes, scaling, alone, published, runs, after)
    print(text)
    RESULT.write_text(text, encoding="utf-8")
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return 1 if missed else 0


def report(
    sizes: dict[str, Published],
    scaling: float,
    alone: dict[str, float],
    published: tuple[float, float, float, float],
    runs: dict[tuple[str, int], Preparation],
    after: dict[str, dict[str, float]],
) -> tuple[str, list[str]]:
    """Markdown, and the floors that were missed."""
    missed: list[str] = []

    def floor(name: str, value: float, least: float, shown: str) -> str:
        if value < least:
            missed.append(f"{name}: {shown}")
        return f"| {name} | **{shown}** |"

    lines = ["## Against the published style, a core", "", "| | |", "|---|---|"]
    plain_once, plain_epoch, images_once, images_epoch = published
    for name, epochs, once, epoch, least in (
        ("plain", 1, plain_once, plain_epoch, 10.0),
        ("images", EPOCHS, images_once, images_epoch, 20.0),
    ):
        events, done = sizes[name].events, after[name]
        ours = runs[name, 1].seconds + done["plan"] + epochs * done["assemble"]
        theirs = events * (once + epochs * epoch)
        what = f"{'with' if name == 'images' else 'without'} images, {epochs} epoch(s)"
        lines += [
            f"| published style, {what} | {theirs / events * 1e6:.0f} us an event, "
            f"{theirs:,.0f} s for all |",
            f"| ours | {ours / events * 1e6:.1f} us an event, {ours:,.0f} s: prepare "
            f"{runs[name, 1].seconds:.0f}, plan {done['plan']:.1f}, {epochs} x assemble "
            f"{done['assemble']:.1f} |",
            floor(f"ratio {what} (floor {least:g})", theirs / ours, least, f"{theirs / ours:.1f}"),
        ]
    lines += ["", "## Preparing", "", "| | workers | seconds | events/s | read, MB/s of files "
              "| decode, frames/s | peak memory, MiB | server, CPU s |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for (name, workers), run in runs.items():
        size, by_step = sizes[name], run.by_step
        frames = f"{size.frames / by_step['DecodeImages']:,.0f}" if size.frames else ""
        lines.append(
            f"| {name}: {size.events:,} events, {size.frames:,} frames | {workers} "
            f"| {run.seconds:.1f} | {size.events / run.seconds:,.0f} "
            f"| {size.event_bytes / 1e6 / by_step['ReadShard']:.1f} | {frames} "
            f"| {run.memory / 2**20:,.0f} | {run.server_seconds:.0f} |"
        )
    lines += ["", "| | |", "|---|---|"]
    for name in ("plain", "images"):
        efficiency = runs[name, 1].seconds / (2 * runs[name, 2].seconds)
        lines.append(
            floor(f"{name}: efficiency from one to two processes, of what the machine gives "
                  "(floor 0.85)", efficiency / scaling, 0.85,
                  f"{efficiency / scaling:.2f} ({efficiency:.2f} of the clock)")
        )  # fmt: skip
    growth = runs["images", 2].memory / runs["few", 2].memory
    lines += [
        f"| two independent processes on this machine against one | {scaling:.2f} |",
        floor("peak memory, five times the events (at most 1.2)", 1.2 / growth, 1.0,
              f"{growth:.2f}"),
        floor("another Delta, share of the first preparation (below 2 %)",
              0.02 / (after["images"]["plan another Delta"] / runs["images", 2].seconds), 1.0,
              f"{after['images']['plan another Delta'] / runs['images', 2].seconds:.2%}: "
              f"{after['images']['plan another Delta']:.1f} of {runs['images', 2].seconds:.0f} s"),
        floor("assembling, tokens/s, row groups in memory, no images (floor 5 M)",
              after["plain"]["tokens/s in memory"], 5e6,
              f"{after['plain']['tokens/s in memory'] / 1e6:.1f} M"),
        floor("the same with an image for every event (floor 5 M)",
              after["images"]["tokens/s in memory"], 5e6,
              f"{after['images']['tokens/s in memory'] / 1e6:.1f} M"),
        *(f"| assembling in random order from the server, nothing cached, {name} "
          f"| {done['tokens'] / done['assemble'] / 1e6:.1f} M tokens/s |"
          for name, done in after.items()),
        "", "## What bounds it: the parts alone, one process", "", "| | |", "|---|---|",
        *(f"| {name} | {value:,.0f} |" for name, value in alone.items()),
    ]  # fmt: skip
    head = HEAD.format(machine=machine("ray", "pyarrow", "pillow", "tokenizers", "orjson"),
                       sizes=sizes["images"])  # fmt: skip
    return head + "\n".join(lines) + "\n", missed


HEAD = """# Preparing, planning and assembling

`make bench-prepare`; {machine}.

Real danmaku (92 videos, 130,198 comments) copied under new names, with generated frames of 480 x
270 pixels: {sizes.events:,} events, {sizes.frames:,} frames, {sizes.event_bytes:,} bytes of events
and {sizes.image_bytes:,} of images, on a SeaweedFS server on the same machine, which takes its
share of the two cores. Copies repeat the texts of the first, so most texts are tokenised once for
all copies that a process reads. One run of each; the machine's own speed varies by a third between
runs.

The published style is measured on a sample in the same run and scaled: per event a tokenizer call
and a look for the image, per epoch the samples tokenised and every event's image read and decoded
again.

"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
