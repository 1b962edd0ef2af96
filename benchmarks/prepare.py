"""How fast ``prepare``, planning and assembling are, from a real S3 server, and what bounds them.

    make bench-prepare                       5 M events, 50,000 frames: about half an hour
    python -m benchmarks.prepare COPIES      so many copies of the real videos instead of 39

Needs MMTPP_TEST_DATA for the danmaku. Prints a table and writes it to ``prepare.md`` beside this
file. Fails when a floor is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import psutil
import ray

from benchmarks.measure import finish
from benchmarks.prepare_limits import IMAGE_PX, limits
from benchmarks.prepare_report import Preparation, report
from benchmarks.published import PublishedPipeline
from benchmarks.replicate import publish, read_videos
from benchmarks.stack import danmaku_folder, own_stack
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data.encode import encode as steps
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import filesystem_of, join, list_files, read_bytes, write_bytes
from tests.qwen_vocabulary import qwen_tokenizer_json

COPIES, FEW_COPIES = 39, 8  # 5.08 M and 1.04 M events
IMAGE_TOKENS, MAX_TOKENS = 9, 4096  # tokens of a frame of ``IMAGE_PX``
DELTA, OTHER_DELTA = 0.2, 0.5
# source, workers, how often
RUNS = (("few", 2, 1), ("plain", 1, 1), ("plain", 2, 1), ("images", 1, 1), ("images", 2, 1))
SAMPLE_FILES, IMAGE_FILES = 8, 4  # of the published style, scaled up
Result = TypeVar("Result")
RESULT = Path(__file__).with_name("prepare.md")
BUCKET = "s3://mmtpp/bench"


def configuration(source: str, store: str, *, workers: int = 0, delta: float = DELTA) -> RunConfig:
    """Qwen's tokenizer, frames of 84 pixels, the paper's layout and context."""
    return config_from_tree(
        {
            "source": {"uri": source, "max_workers": workers},
            "store": {"uri": store},  # with its disk cache, in the stack's folder
            "split": {"validation_fraction": 0.0, "test_fraction": 0.0},
            "model": {"path": f"{BUCKET}/model"},
            "template": {"image_px": IMAGE_PX, "images": "per_event"},
            "compression": {"delta": delta},
            "window": {"max_tokens": MAX_TOKENS},
        }
    )


class Watch(threading.Thread):
    """Samples memory and processor time of this process and of the workers that Ray gives it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.memory: list[int] = []
        self._seen: dict[int, tuple[float, float]] = {}
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Until ``stop``."""
        while not self._stop_event.wait(1.0):  # a look costs some hundredths of a second
            self._look()
        self._look()

    def _look(self) -> None:
        total = _private(psutil.Process())
        for process in psutil.process_iter(["cmdline"]):
            # between its tasks a worker is called idle
            if process.pid in self._seen or "ray::Map" in " ".join(process.info["cmdline"] or []):
                with suppress(psutil.NoSuchProcess):
                    total += _private(process)
                    self._seen[process.pid] = (_seconds(process), _seconds_in_queue(process.pid))
        self.memory.append(total)

    def stop(self) -> tuple[float, float]:
        """End. Processor seconds of all workers, and seconds that they were ready but had none."""
        self._stop_event.set()
        self.join()
        seen = self._seen.values()
        return sum(seconds for seconds, _ in seen), sum(in_queue for _, in_queue in seen)


def _seconds(process: psutil.Process) -> float:
    """Of a processor, so far."""
    return sum(process.cpu_times()[:2])


def _seconds_in_queue(pid: int) -> float:
    """That the main thread was ready to run while others had the processors."""
    with suppress(FileNotFoundError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _private(process: psutil.Process) -> int:
    """Resident bytes that the process shares with nobody, from /proc/PID/statm: cheap to read."""
    memory = process.memory_info()
    return memory.rss - memory.shared


@contextmanager
def steps_timed() -> Iterator[dict[str, float]]:
    """Seconds of every step of ``encode``, by its name."""
    seconds: dict[str, float] = {}
    whole = steps._Run._map

    def timed(self: steps._Run, actor: type, items: list[dict], arguments: tuple) -> Iterator[dict]:
        started = time.perf_counter()
        yield from whole(self, actor, items, arguments)
        seconds[actor.__name__] = time.perf_counter() - started

    with patch.object(steps._Run, "_map", timed):
        yield seconds


def server_seconds() -> float:
    """Processor seconds of the S3 server so far."""
    servers = [each for each in psutil.process_iter(["name"]) if each.info["name"] == "weed"]
    return sum(sum(each.cpu_times()[:2]) for each in servers)


def connect() -> None:
    """Begin a job of its own on the cluster."""
    ray.init(
        runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}}, logging_level=logging.WARNING
    )
    start_ray()  # quiet


def in_new_process(work: Callable[..., Result], *arguments: object) -> Result:
    """A driver of its own for every measurement, which is given new workers."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def run_prepare(source: str, store: str, workers: int) -> Preparation:
    """Prepare from nothing."""
    connect()
    server, driver, watch = server_seconds(), time.process_time(), Watch()
    watch.start()
    started = time.perf_counter()
    with steps_timed() as by_step:
        prepare(configuration(source, store, workers=workers))
    seconds = time.perf_counter() - started
    worker_cpu, in_queue = watch.stop()
    tenths = np.linspace(0, len(watch.memory) - 1, 11).round().astype(int)[1:]
    done = Preparation(
        workers=workers,
        seconds=seconds,
        by_step=by_step,
        memory=[watch.memory[index] for index in tenths],
        worker_cpu=worker_cpu,
        in_queue=in_queue,
        driver_cpu=time.process_time() - driver,
        server_cpu=server_seconds() - server,
    )
    print(store, done, flush=True)
    ray.shutdown()
    return done


def published_rates(source: str, plain: str) -> dict[str, tuple[float, float]]:
    """Processor seconds an event of the published style on a sample, once and for each epoch."""
    rates = {}
    for name, uri, count in (("plain", plain, SAMPLE_FILES), ("images", source, IMAGE_FILES)):
        filesystem, root = filesystem_of(uri)

        def is_there(path: str, root: str = root, filesystem=filesystem) -> bool:
            return bool(path) and filesystem.get_file_info(f"{root}/{path}").is_file

        pipeline = PublishedPipeline(
            lambda path, uri=uri: read_bytes(join(uri, path)),
            is_there,
            max_tokens=MAX_TOKENS,
            image_tokens=IMAGE_TOKENS,
            image_px=IMAGE_PX,
        )
        every = sorted(list_files(uri, ".json"), key=lambda info: info.size)
        middle = len(every) // 4  # of about the median length
        paths = [info.base_name for info in every[middle : -middle : len(every) // (2 * count)]]
        events = sum(len(json.loads(read_bytes(join(uri, path)))) for path in paths)
        started = time.process_time()
        samples = [sample for path in paths for sample in pipeline.samples(path, DELTA)]
        once = time.process_time() - started
        started = time.process_time()
        pipeline.epoch(samples)
        epoch = time.process_time() - started
        rates[name] = (once / events, epoch / events)
        print(f"published style, {events} events, {name}: {once:.1f} + {epoch:.1f} CPU s")
    return rates


def plan_and_assemble(source: str, store: str) -> dict[str, float]:
    """Seconds of planning two Deltas and of one epoch assembled in this process."""
    found: dict[str, float] = {}
    manifest = load_manifest(store)
    ids = store_vocabulary(store, manifest).token_ids()

    def settings_of(delta: float) -> AssembleSettings:
        return assemble_settings(configuration(source, store, delta=delta), manifest, split="train")

    connect()
    for name, delta in (("another Delta", OTHER_DELTA), ("plan", DELTA)):
        watch, driver, started = Watch(), time.process_time(), time.perf_counter()
        watch.start()
        plan = make_plan(settings_of(delta), ids)
        found[name] = time.perf_counter() - started
        found[f"{name} CPU"] = watch.stop()[0] + time.process_time() - driver
    settings = settings_of(DELTA)
    for epoch in ("first", "later"):  # the first fills the disk cache
        order = np.random.default_rng(len(epoch)).permutation(len(plan.samples))
        assembler = Assembler(settings, ids)
        tokens, started, cpu = 0, time.perf_counter(), time.process_time()
        for at in range(0, len(order), 16):
            table = assembler(samples_table(plan, order[at : at + 16]))
            tokens += len(table["input_ids"].combine_chunks().flatten())
        found[f"{epoch} epoch"] = time.perf_counter() - started
        found[f"{epoch} epoch CPU"] = time.process_time() - cpu
        found["tokens"] = tokens
    # samples whose row groups are in memory: windows of one file of the store
    files = np.array(plan.windows["file"].to_pylist())
    near = [i for i, windows in enumerate(plan.samples) if (files[windows] == files[0]).all()][:64]
    batches = [samples_table(plan, np.array(near[at : at + 16])) for at in range(0, len(near), 16)]
    rates = []
    for turn in range(30):
        for batch in batches:
            started = time.process_time()
            table = assembler(batch)
            seconds = time.process_time() - started
            if turn:  # the first reads
                rates.append(len(table["input_ids"].combine_chunks().flatten()) / seconds)
    found["tokens/s in memory"] = float(np.median(rates))
    return found


def main(argv: list[str]) -> int:
    """Measure, print, write."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder = danmaku_folder()
    copies = int(argv[0]) if argv else COPIES
    with own_stack():
        return _measure(folder, copies)


def _measure(folder: Path, copies: int) -> int:
    videos = read_videos(folder)
    few = max(1, copies * FEW_COPIES // COPIES)
    write_bytes(f"{BUCKET}/model/tokenizer.json", qwen_tokenizer_json().encode())
    uris = {name: f"{BUCKET}/{name}" for name in ("images", "plain", "few")}
    started = time.perf_counter()
    sizes = {
        "images": publish(uris["images"], videos, range(copies), with_images=True),
        # twice as many, or the start of the processes would be much of the time
        "plain": publish(uris["plain"], videos, range(2 * copies), with_images=False),
        "few": publish(uris["few"], videos, range(few), with_images=True),
    }
    print(f"{sizes} published in {time.perf_counter() - started:.0f} s", flush=True)
    alone = limits(uris["images"])
    published = published_rates(uris["images"], uris["plain"])
    store = f"{BUCKET}/store"
    runs = {
        (name, workers): [
            in_new_process(run_prepare, uris[name], f"{store}-{name}-{workers}-{turn}", workers)
            for turn in range(turns)
        ]
        for name, workers, turns in RUNS
    }
    after = {
        name: in_new_process(plan_and_assemble, uris[name], f"{store}-{name}-1-0")
        for name in ("plain", "images")
    }
    print(alone, published, after, flush=True)
    text, missed = report(sizes, alone, published, runs, after)
    return finish(text, RESULT, missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
