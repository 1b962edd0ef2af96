"""Speed of S3's clients at many small files: pyarrow, s3fs, and this project's reader (obstore).

Sixteen threads read the same files from a server on this machine, client after client, in turns.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.fs as pafs
import s3fs

from benchmarks.measure import finish, machine
from benchmarks.stack import own_stack
from mmtpp.storage.paths import read_bytes, write_bytes

FOLDER = "mmtpp/bench/small"
NUM_FILES, FILE_BYTES, THREADS, TURNS = 1000, 20_000, 16, 3
MIN_SPEED, MAX_CPU = 1.5, 0.6  # of this project's reader, relative to pyarrow
RESULT = Path(__file__).parent / "read_clients.md"


def clients() -> dict[str, Callable[[str], bytes]]:
    """Functions that read a whole file of S3, by the name of the client."""
    arrow = pafs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    fsspec_client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)

    def read_with_arrow(path: str) -> bytes:
        with arrow.open_input_file(path) as file:
            file.size()  # to refuse a file that is too large
            return file.read()

    return {
        "pyarrow": read_with_arrow,
        "s3fs": lambda path: cast("bytes", fsspec_client.cat_file(path)),
        "mmtpp (obstore)": lambda path: read_bytes(f"s3://{path}", max_bytes=2**30),
    }


def measure() -> dict[str, tuple[float, float]]:
    """Files per second and CPU milliseconds per file of each client, medians of the turns."""
    paths = [f"{FOLDER}/{index:05d}.bin" for index in range(NUM_FILES)]
    content = np.random.default_rng(0).bytes(FILE_BYTES)
    rates: dict[str, list[tuple[float, float]]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda path: write_bytes(f"s3://{path}", content), paths))
        for _ in range(TURNS):
            for name, read in clients().items():
                started, cpu = time.perf_counter(), time.process_time()
                total = sum(pool.map(lambda path, read=read: len(read(path)), paths))
                seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
                assert total == NUM_FILES * FILE_BYTES
                rates.setdefault(name, []).append((NUM_FILES / seconds, 1e3 * cpu / NUM_FILES))
    return {
        name: (statistics.median(rate for rate, _ in turns), statistics.median(c for _, c in turns))
        for name, turns in rates.items()
    }


def report(rates: dict[str, tuple[float, float]]) -> tuple[str, list[str]]:
    """The table of the clients, and the requirements that are not met."""
    (speed, cpu), (reference, reference_cpu) = rates["mmtpp (obstore)"], rates["pyarrow"]
    lines = [
        "# Clients of S3 at small files",
        "",
        f"`python -m benchmarks.read_clients`: {NUM_FILES} files of {FILE_BYTES // 1000} kB, "
        f"{THREADS} threads, one server and one client process on one machine; medians of {TURNS} "
        "turns. The required values of this project's reader are at least "
        f"{MIN_SPEED:g} times the files per second of pyarrow and at most {MAX_CPU:g} of its CPU.",
        "",
        f"{machine('pyarrow', 's3fs', 'obstore', used='shared with the server')}.",
        "",
        "| client | files/s | CPU ms per file | files/s, relative | CPU, relative |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {rate:.0f} | {used:.2f} | {rate / reference:.2f} |"
        f" {used / reference_cpu:.2f} |"
        for name, (rate, used) in rates.items()
    ]
    missed = []
    if speed < MIN_SPEED * reference:
        missed.append(f"{speed / reference:.2f} times the files per second of pyarrow")
    if cpu > MAX_CPU * reference_cpu:
        missed.append(f"{cpu / reference_cpu:.2f} of the CPU of pyarrow")
    return "\n".join(lines) + "\n", missed


def main() -> int:
    """Measure, print and write the results."""
    with own_stack():
        text, missed = report(measure())
    return finish(text, RESULT, missed)


if __name__ == "__main__":
    sys.exit(main())
