"""Speed of ``prepare``, planning and assembling with a real S3 server, and its limits.

    make bench-prepare                       5 M events, 50,000 frames: about half an hour
    python -m benchmarks.prepare COPIES      with COPIES copies of the real videos instead of 39

Needs MMTPP_TEST_DATA for the danmaku. Prints a table and writes it to ``prepare.md`` next to this
file. Fails if a floor is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

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
from benchmarks.prepare_limits import IMAGE_PX, busy_limits, limits
from benchmarks.prepare_report import Measurements, Preparation, StepTime, report
from benchmarks.published import PublishedPipeline
from benchmarks.replicate import publish, read_videos
from benchmarks.stack import danmaku_folder, own_stack
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data.encode.encode_pipeline import EncodePipeline
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.runtime.session import start_ray
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import join, list_files, read_bytes, write_bytes
from tests.helpers.qwen_vocabulary import qwen_tokenizer_json

COPIES, FEW_COPIES = 39, 8  # 5.08 M and 1.04 M events
IMAGE_TOKENS, MAX_TOKENS = 9, 4096  # tokens of a frame of ``IMAGE_PX``
DELTA, OTHER_DELTA = 0.2, 0.5
# source, number of workers, number of repetitions
RUNS = (("few", 2, 1), ("plain", 1, 1), ("plain", 2, 1), ("images", 1, 1), ("images", 2, 1))
SAMPLE_FILES, IMAGE_FILES = 8, 4  # files measured in the published style; the result is scaled up
Result = TypeVar("Result")
RESULT = Path(__file__).with_name("prepare.md")
BUCKET = "s3://mmtpp/bench"


def configuration(source: str, store: str, *, workers: int = 0, delta: float = DELTA) -> RunConfig:
    """Settings: Qwen's tokenizer, frames of 84 pixels, the paper's template and context."""
    return config_from_tree(
        {
            "source": {"uri": source, "max_processes": workers},
            "store": {"uri": store},  # its disk cache is in the stack's folder
            "split": {"validation_fraction": 0.0, "test_fraction": 0.0},
            "model": {"path": f"{BUCKET}/model"},
            "template": {"image_px": IMAGE_PX, "images": "per_event"},
            "compression": {"delta": delta},
            "window": {"max_tokens": MAX_TOKENS},
        }
    )


class ResourceWatch(threading.Thread):
    """Samples memory and CPU time of this process and of its Ray workers."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.memory: list[int] = []
        self._seen: dict[int, tuple[float, float]] = {}
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Sample every second until ``stop``."""
        while not self._stop_event.wait(1.0):  # a sample takes some hundredths of a second
            self._sample()
        self._sample()

    def _sample(self) -> None:
        total = _private(psutil.Process())
        for process in psutil.process_iter(["cmdline"]):
            # between two tasks a worker has another name
            if process.pid in self._seen or "ray::Map" in " ".join(process.info["cmdline"] or []):
                with suppress(psutil.NoSuchProcess):
                    total += _private(process)
                    self._seen[process.pid] = (
                        _cpu_seconds(process),
                        _seconds_in_queue(process.pid),
                    )
        self.memory.append(total)

    def worker_seconds(self) -> float:
        """CPU seconds of the workers so far."""
        self._sample()
        return sum(seconds for seconds, _ in self._seen.values())

    def stop(self) -> tuple[float, float]:
        """End the thread; returns the workers' CPU seconds and seconds spent waiting for a CPU."""
        self._stop_event.set()
        self.join()
        seen = self._seen.values()
        return sum(seconds for seconds, _ in seen), sum(in_queue for _, in_queue in seen)


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    return sum(process.cpu_times()[:2])


def _seconds_in_queue(pid: int) -> float:
    """Seconds that the main thread was ready to run but had no CPU."""
    with suppress(FileNotFoundError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _private(process: psutil.Process) -> int:
    """Private resident bytes of a process, from /proc/PID/statm, which is cheap to read."""
    memory = process.memory_info()
    return memory.rss - memory.shared


@contextmanager
def steps_timed(watch: ResourceWatch) -> Iterator[dict[str, StepTime]]:
    """Measure every step of ``encode``, by its name."""
    times: dict[str, StepTime] = {}
    original = EncodePipeline.run_step

    def timed(
        self: EncodePipeline, actor: type, items: list[dict], arguments: tuple
    ) -> Iterator[dict]:
        started, before = time.perf_counter(), watch.worker_seconds()
        yield from original(self, actor, items, arguments)
        times[actor.__name__] = StepTime(
            time.perf_counter() - started, watch.worker_seconds() - before
        )

    with patch.object(EncodePipeline, "run_step", timed):
        yield times


def server_seconds() -> float:
    """CPU seconds of the S3 server so far."""
    servers = [
        process for process in psutil.process_iter(["name"]) if process.info["name"] == "weed"
    ]
    return sum(sum(server.cpu_times()[:2]) for server in servers)


def connect() -> None:
    """Connect to the cluster as a new job."""
    ray.init(
        runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}}, logging_level=logging.WARNING
    )
    start_ray()  # sets the log levels


def in_new_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Run a function in a new driver process, which gets new Ray workers."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def run_prepare(source: str, store: str, workers: int) -> Preparation:
    """Prepare a new store and measure it."""
    connect()
    server, driver, watch = server_seconds(), time.process_time(), ResourceWatch()
    watch.start()
    started = time.perf_counter()
    with steps_timed(watch) as by_step:
        prepare(configuration(source, store, workers=workers))
    seconds = time.perf_counter() - started
    worker_cpu, in_queue = watch.stop()
    tenths = np.linspace(0, len(watch.memory) - 1, 11).round().astype(int)[1:]
    preparation = Preparation(
        workers=workers,
        seconds=seconds,
        by_step=by_step,
        memory=[watch.memory[index] for index in tenths],
        worker_cpu=worker_cpu,
        in_queue=in_queue,
        driver_cpu=time.process_time() - driver,
        server_cpu=server_seconds() - server,
    )
    print(store, preparation, flush=True)
    ray.shutdown()
    return preparation


def published_rates(source: str, plain: str) -> dict[str, tuple[float, float]]:
    """CPU seconds per event in the published style, from a sample: once, and per epoch."""
    rates = {}
    for name, uri, count in (("plain", plain, SAMPLE_FILES), ("images", source, IMAGE_FILES)):
        filesystem, root = filesystem_of(uri)

        def exists(path: str, root: str = root, filesystem=filesystem) -> bool:
            return bool(path) and filesystem.get_file_info(f"{root}/{path}").is_file

        pipeline = PublishedPipeline(
            lambda path, uri=uri: read_bytes(join(uri, path)),
            exists,
            max_tokens=MAX_TOKENS,
            image_tokens=IMAGE_TOKENS,
            image_px=IMAGE_PX,
        )
        every = sorted(list_files(uri, ".json"), key=lambda info: info.size)
        margin = len(every) // 4  # the sample has files of about median length
        paths = [info.base_name for info in every[margin : -margin : len(every) // (2 * count)]]
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
    """Seconds to plan with two Deltas and to assemble two epochs in this process."""
    figures: dict[str, float] = {}
    manifest = load_manifest(store)
    ids = store_vocabulary(store, manifest).token_ids()

    def settings_of(delta: float) -> SampleSettings:
        return build_sample_settings(
            configuration(source, store, delta=delta).sample_sections, manifest, split="train"
        )

    connect()
    for name, delta in (("another Delta", OTHER_DELTA), ("plan", DELTA)):
        watch = ResourceWatch()
        driver, started = time.process_time(), time.perf_counter()
        watch.start()
        plan = make_plan(settings_of(delta), ids)
        figures[name] = time.perf_counter() - started
        figures[f"{name} CPU"] = watch.stop()[0] + time.process_time() - driver
    settings = settings_of(DELTA)
    for epoch in ("first", "later"):  # the first fills the disk cache
        order = np.random.default_rng(len(epoch)).permutation(plan.num_samples)
        assembler = Assembler(settings, ids)
        tokens, started, cpu = 0, time.perf_counter(), time.process_time()
        for at in range(0, len(order), 16):
            table = assembler(samples_table(plan, order[at : at + 16]))
            tokens += len(table["input_ids"].combine_chunks().flatten())
        figures[f"{epoch} epoch"] = time.perf_counter() - started
        figures[f"{epoch} epoch CPU"] = time.process_time() - cpu
        figures["tokens"] = tokens
    # samples with windows of one file of the store, so that their row groups are in memory
    files = np.array(plan.windows["file"].to_pylist())
    samples = np.split(files == files[0], plan.offsets[1:-1])
    near = [index for index, is_first in enumerate(samples) if is_first.all()][:64]
    batches = [samples_table(plan, np.array(near[at : at + 16])) for at in range(0, len(near), 16)]
    rates = []
    for turn in range(30):
        for batch in batches:
            started = time.process_time()
            table = assembler(batch)
            seconds = time.process_time() - started
            if turn:  # the first turn reads the file
                rates.append(len(table["input_ids"].combine_chunks().flatten()) / seconds)
    figures["tokens/s in memory"] = float(np.median(rates))
    return figures


def main(argv: list[str]) -> int:
    """Measure, print and write the results."""
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
        # twice the number of copies, so that the start of the processes matters less
        "plain": publish(uris["plain"], videos, range(2 * copies), with_images=False),
        "few": publish(uris["few"], videos, range(few), with_images=True),
    }
    print(f"{sizes} published in {time.perf_counter() - started:.0f} s", flush=True)
    alone, busy = limits(uris["images"]), busy_limits(uris["images"])
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
    print(alone, busy, published, after, flush=True)
    text, missed = report(Measurements(sizes, alone, busy, published, runs, after))
    return finish(text, RESULT, missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
