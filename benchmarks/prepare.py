"""How fast ``prepare``, planning and assembling are, from a real S3 server, and what bounds them.

    make bench-prepare                       5 M events, 50,000 frames: about half an hour
    python -m benchmarks.prepare COPIES      so many copies of the real videos instead of 39

Needs MMTPP_TEST_DATA for the danmaku. Prints a table and writes it to ``prepare.md`` beside this
file. Fails when a floor is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import ray

from benchmarks.prepare_limits import IMAGE_PX, limits, scaling
from benchmarks.prepare_report import Preparation, report
from benchmarks.published import PublishedPipeline
from benchmarks.replicate import publish, read_videos
from cluster.local import down, up
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data import encode as steps
from mmtpp.data.assemble import Assembler
from mmtpp.data.plan import AssembleSettings, make_plan, samples_table
from mmtpp.data.prepare import prepare, start_ray
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import filesystem_of, join, list_files, read_bytes, write_bytes
from tests.qwen_vocabulary import qwen_tokenizer_json

COPIES, FEW_COPIES = 39, 8  # 5.08 M and 1.04 M events
IMAGE_TOKENS, MAX_TOKENS = 9, 4096  # of frames of 84 pixels
DELTA, OTHER_DELTA = 0.2, 0.5
SAMPLE_FILES, IMAGE_FILES = 8, 4  # of the published style, scaled up
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
        self._cpu: dict[int, float] = {}  # at the last look
        self._before: dict[int, float] = {}
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Until ``stop``."""
        for process in _workers():
            with suppress(psutil.NoSuchProcess):
                self._before[process.pid] = _seconds(process)
        while not self._stop_event.wait(2.0):  # a look costs some hundredths of a second
            self._look()
        self._look()

    def _look(self) -> None:
        total = _private(psutil.Process())
        for process in _workers():
            with suppress(psutil.NoSuchProcess):
                total += _private(process)
                self._cpu[process.pid] = _seconds(process)
        self.memory.append(total)

    def stop(self) -> float:
        """End, and the processor seconds of all workers seen."""
        self._stop_event.set()
        self.join()
        return sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._cpu.items())


def _workers() -> list[psutil.Process]:
    """Ray's processes for the work of jobs, busy or idle."""
    every = psutil.process_iter(["cmdline"])
    return [each for each in every if "ray::" in " ".join(each.info["cmdline"] or [])]


def _seconds(process: psutil.Process) -> float:
    """Of a processor, so far."""
    return sum(process.cpu_times()[:2])


def _private(process: psutil.Process) -> int:
    """Resident bytes that the process shares with nobody, from /proc/PID/statm: cheap to read."""
    memory = process.memory_info()
    return memory.rss - memory.shared


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


def connect() -> None:
    """Begin a new job on the cluster, which is given new processes."""
    ray.shutdown()
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}}, logging_level="WARNING")
    start_ray()  # quiet


def run_prepare(source: str, store: str, *, workers: int) -> Preparation:
    """Prepare from nothing, with new processes."""
    connect()
    server, driver, watch = server_seconds(), time.process_time(), Watch()
    watch.start()
    started = time.perf_counter()
    with steps_timed() as by_step:
        prepare(configuration(source, store, workers=workers))
    seconds = time.perf_counter() - started
    worker_cpu = watch.stop()
    tenths = np.linspace(0, len(watch.memory) - 1, 11).round().astype(int)[1:]
    done = Preparation(
        workers=workers,
        seconds=seconds,
        by_step=by_step,
        memory=[watch.memory[index] for index in tenths],
        worker_cpu=worker_cpu,
        driver_cpu=time.process_time() - driver,
        server_cpu=server_seconds() - server,
    )
    print(store, done, flush=True)
    return done


def published_rates(source: str, plain: str) -> dict[str, tuple[float, float]]:
    """Processor seconds an event of the published style on a sample, once and for each epoch."""
    rates = {}
    for name, uri, count in (("plain", plain, SAMPLE_FILES), ("images", source, IMAGE_FILES)):
        filesystem, root = filesystem_of(uri)

        def is_there(path: str, root: str = root, filesystem=filesystem) -> bool:
            return bool(path) and filesystem.get_file_info(f"{root}/{path}").is_file

        pipeline = PublishedPipeline(
            lambda path, uri=uri: read_bytes(join(uri, path)), is_there,
            max_tokens=MAX_TOKENS, image_tokens=IMAGE_TOKENS, image_px=IMAGE_PX,
        )  # fmt: skip
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

    connect()  # other processes than those that prepared
    for name, delta in (("another Delta", OTHER_DELTA), ("plan", DELTA)):
        watch, driver, started = Watch(), time.process_time(), time.perf_counter()
        watch.start()
        plan = make_plan(settings_of(delta), ids)
        found[name] = time.perf_counter() - started
        found[f"{name} CPU"] = watch.stop() + time.process_time() - driver
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
    for turn in range(6):
        for batch in batches:
            started = time.perf_counter()
            table = assembler(batch)
            seconds = time.perf_counter() - started
            if turn:  # the first reads
                rates.append(len(table["input_ids"].combine_chunks().flatten()) / seconds)
    found["tokens/s in memory"] = float(np.median(rates))
    return found


def main(argv: list[str]) -> int:
    """Measure, print, write."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    data = os.environ.get("MMTPP_TEST_DATA", "")
    folder = Path(data) / "danmaku_bilibili_xml"
    if not data or not folder.is_dir():
        print("MMTPP_TEST_DATA does not name a folder with danmaku_bilibili_xml", file=sys.stderr)
        return 2
    copies = int(argv[0]) if argv else COPIES
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stack is stopped below
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
    alone = limits(uris["images"])
    published = published_rates(uris["images"], uris["plain"])
    store = f"{BUCKET}/store"
    runs = {("few", 2): run_prepare(uris["few"], f"{store}-few-2", workers=2)}
    possible: dict[str, float] = {}
    for name in ("plain", "images"):
        possible[name] = scaling(uris[name], f"{BUCKET}/alone", with_images=name == "images")
        for workers in (1, 2):
            runs[name, workers] = run_prepare(
                uris[name], f"{store}-{name}-{workers}", workers=workers
            )
        again = scaling(uris[name], f"{BUCKET}/alone", with_images=name == "images")
        print(f"{name}: without Ray {possible[name]:.2f} before, {again:.2f} after", flush=True)
        possible[name] = (possible[name] + again) / 2
    after = {name: plan_and_assemble(uris[name], f"{store}-{name}-1")
             for name in ("plain", "images")}  # fmt: skip
    print(possible, alone, published, after, flush=True)
    text, missed = report(sizes, possible, alone, published, runs, after)
    print(text)
    RESULT.write_text(text, encoding="utf-8")
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
