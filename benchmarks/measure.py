"""Timing, tables and the description of the machine, used by all benchmarks."""

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

ROUNDS = 5


def rate(work: Callable[[], object], items: int, *, rounds: int = ROUNDS) -> list[float]:
    """Items per second in each round, after one warm-up round."""
    work()
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        rates.append(items / (time.perf_counter() - started))
    return rates


def figure(rates: list[float]) -> str:
    """Median and range of rates, in millions, as text."""
    low, middle, high = (
        value / 1e6 for value in (min(rates), statistics.median(rates), max(rates))
    )
    digits = 0 if middle >= 10 else 3
    return f"{middle:.{digits}f} M [{low:.{digits}f}-{high:.{digits}f}]"


def ratio(ours: list[float], other: list[float]) -> float:
    """Ratio of the medians."""
    return statistics.median(ours) / statistics.median(other)


def processor() -> str:
    """Name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(*packages: str, used: str = "one used") -> str:
    """CPU, cores and versions of packages, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    python = platform.python_version()
    return f"{processor()}, {os.cpu_count()} cores, {used}; Python {python}, {versions}"


def table(
    title: str, how: str, figures: Mapping[str, str], *, floors: Mapping[str, str] | None = None
) -> str:
    """Markdown of a benchmark: how it was run and its figures; figures with a floor first, bold."""
    rows = [f"| {name} | **{value}** |" for name, value in (floors or {}).items()]
    rows += [f"| {name} | {value} |" for name, value in figures.items()]
    return "\n".join([f"# {title}", "", how, "", "| | |", "|---|---|", *rows, ""])


def finish(text: str, result: Path, missed: Sequence[str] = ()) -> int:
    """Print and write the result and print the missed floors; returns the exit status."""
    print(text)
    result.write_text(text, encoding="utf-8")
    return _report_missed(missed)


def finish_section(section: str, result: Path, missed: Sequence[str] = ()) -> int:
    """Like ``finish``, for one section of a page; its other sections stay.

    Args:
        section: The section, with a heading of the first or second level.
        result: The page.
        missed: Names of the missed floors.
    """
    page = result.read_text(encoding="utf-8") if result.exists() else ""
    print(section)
    result.write_text(replace_section(page, section), encoding="utf-8")
    return _report_missed(missed)


def replace_section(page: str, section: str) -> str:
    """The page with the section in the place of the one with its heading, or at the end.

    Args:
        page: Markdown of sections, each with a heading of the first or second level.
        section: Markdown of one section.
    """
    heading = section.partition("\n")[0]
    parts = [
        part.strip("\n") + "\n" for part in re.split(r"^(?=##? )", page, flags=re.MULTILINE) if part
    ]
    places = [index for index, part in enumerate(parts) if part.partition("\n")[0] == heading]
    place = places[0] if places else len(parts)
    parts[place : place + 1] = [section.strip("\n") + "\n"]
    return "\n".join(parts)


def _report_missed(missed: Sequence[str]) -> int:
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0
