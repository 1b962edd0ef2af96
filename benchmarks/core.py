"""Speed of the per-event work: ours against a plain loop over events, in one run.

    python -m benchmarks.core            prints a table; or: make bench

The loop does what the published scripts do for each event (struct for the time code, one Python
step per event for compression and template) without their tokenizer call, so the ratios are lower
bounds. Each figure is the median of seven rounds with the range in brackets.
"""

import os
import platform
import statistics
import struct
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from mmtpp.core.compression import similar_events
from mmtpp.core.template import Events, Template, TokenIds
from mmtpp.core.timecode import encode_intervals

ROUNDS = 7
IDS = TokenIds(1000, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, (20,), (21,), (30, 31, 32))


def rate(work: Callable[[], object], items: int) -> list[float]:
    """Items a second in each round, after one round to warm up."""
    work()
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        rates.append(items / (time.perf_counter() - started))
    return rates


def sequence(num_events: int) -> Events:
    """Events with six text tokens and a new image every third event."""
    rng = np.random.default_rng(0)
    intervals = rng.exponential(1.0, num_events)
    return Events(
        time_bytes=encode_intervals(intervals),
        types=rng.integers(0, 9, num_events).astype(np.int16),
        text_ids=rng.integers(100, 900, 6 * num_events).astype(np.int32),
        text_offsets=np.arange(0, 6 * num_events + 1, 6),
        frames=(np.arange(num_events) // 3).astype(np.int32),
        similar=similar_events(intervals, strategy="temporal", delta=0.2),
    )


def encode_loop(intervals: list[float]) -> list[bytes]:
    """One struct call an interval."""
    return [struct.pack(">f", interval) for interval in intervals]


def similar_loop(intervals: list[float], delta: float) -> list[bool]:
    """One comparison an event."""
    marks, previous = [], None
    for interval in intervals:
        marks.append(previous is not None and abs(interval - previous) < delta)
        previous = interval
    return marks


def write_loop(events: Events) -> list[int]:
    """The paper's layout, one event after the other."""
    out = [30, 31, 32]
    for i in range(len(events)):
        if events.similar[i]:
            out += [9, 21]
            continue
        text = events.text_ids[events.text_offsets[i] : events.text_offsets[i + 1]].tolist()
        code = [1000 + int(byte) for byte in events.time_bytes[i]]
        out += [1, 20, 3, *code, 4, 20, 5, 1000 + int(events.types[i]), 6, 20, 7, *text, 8]
        out += [20, 10, 11, 11, 11, 11, 12, 20, 2, 21]
    return out


def main() -> None:
    """Measure and print."""
    intervals = np.random.default_rng(0).exponential(1.0, 1_000_000)
    plain = intervals.tolist()
    events = sequence(20_000)
    template = Template(IDS, style="paper", images="per_event", image_tokens=4)
    assert write_loop(events) == template.write(events).ids.tolist()
    tokens = len(template.write(events).ids)
    rows = [
        ("time code, intervals/s", rate(lambda: encode_intervals(intervals), len(plain)),
         rate(lambda: encode_loop(plain), len(plain))),
        ("temporal compression, events/s",
         rate(lambda: similar_events(intervals, strategy="temporal", delta=0.2), len(plain)),
         rate(lambda: similar_loop(plain, 0.2), len(plain))),
        ("paper template, tokens/s", rate(lambda: template.write(events), tokens),
         rate(lambda: write_loop(events), tokens)),
    ]  # fmt: skip
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used; Python "
          f"{platform.python_version()}, numpy {version('numpy')}\n")  # fmt: skip
    print("| | ours | plain loop | ratio |\n|---|---|---|---|")
    for name, ours, loop in rows:
        ratio = statistics.median(ours) / statistics.median(loop)
        print(f"| {name} | {_figure(ours)} | {_figure(loop)} | {ratio:.0f} |")


def _figure(rates: list[float]) -> str:
    low, middle, high = (each / 1e6 for each in (min(rates), statistics.median(rates), max(rates)))
    return f"{middle:.2f} M [{low:.2f}-{high:.2f}]"


if __name__ == "__main__":
    main()
