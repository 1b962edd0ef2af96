"""The tables of the benchmark of ``prepare``, and the missed floors."""

from dataclasses import dataclass
from statistics import median

from benchmarks.measure import machine
from benchmarks.prepare_limits import CONVERT
from benchmarks.replicate import Published

EPOCHS = 3  # number of epochs in the comparison with images


@dataclass(frozen=True, slots=True)
class StepTime:
    """What a step of ``encode`` took.

    Attributes:
        seconds: Seconds of the step, by wall-clock time.
        worker_cpu: CPU seconds of the workers.
    """

    seconds: float
    worker_cpu: float


@dataclass(frozen=True, slots=True)
class Preparation:
    """One run of ``prepare``.

    Attributes:
        workers: Number of worker processes.
        seconds: Wall-clock seconds.
        by_step: Times of each step, by its name.
        memory: Bytes of the driver and the workers at the end of each tenth of the run.
        worker_cpu: CPU seconds of the workers.
        in_queue: Seconds that workers were ready to run but had no CPU.
        driver_cpu: CPU seconds of the driver.
        server_cpu: CPU seconds of the S3 server.
    """

    workers: int
    seconds: float
    by_step: dict[str, StepTime]
    memory: list[int]
    worker_cpu: float
    in_queue: float
    driver_cpu: float
    server_cpu: float


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that the benchmark measured.

    Attributes:
        sizes: Size of each data set, by its name.
        alone: Speed of single parts in one process, in units per second.
        busy: The same per CPU second, while another process does the same.
        published: CPU seconds per event in the published style, once and per epoch, by data set.
        runs: Runs of ``prepare``, by data set and number of workers.
        after: Seconds of planning and assembling, by data set.
    """

    sizes: dict[str, Published]
    alone: dict[str, float]
    busy: dict[str, float]
    published: dict[str, tuple[float, float]]
    runs: dict[tuple[str, int], list[Preparation]]
    after: dict[str, dict[str, float]]


class Floors:
    """Rows of a table for figures with a floor, and the names of missed floors."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def row(self, name: str, value: float, minimum: float, text: str) -> str:
        """A row of the table; records the floor as missed if the value is below the minimum."""
        if value < minimum:
            self.missed.append(f"{name}: {text}")
        return f"| {name} | **{text}** |"


def report(measured: Measurements) -> tuple[str, list[str]]:
    """The report in Markdown, and the missed floors."""
    floors = Floors()
    lines = [
        *_comparison(measured, floors),
        *_preparations(measured),
        *_scaling(measured, floors),
        *_planning_and_assembling(measured, floors),
        *_limits(measured, floors),
    ]
    head = HEAD.format(
        sizes=measured.sizes["images"],
        machine=machine(
            "ray", "pyarrow", "pillow", "tokenizers", "orjson", used="shared with the server"
        ),
    )
    return head + "\n".join(lines) + "\n", floors.missed


def _comparison(measured: Measurements, floors: Floors) -> list[str]:
    """CPU time compared with the published style."""
    lines = [
        "## CPU time compared with the published style",
        "",
        "| | us per event | total, CPU s |",
        "|---|---|---|",
    ]
    ratios = []
    for name, epochs, minimum in (("plain", 1, 10.0), ("images", EPOCHS, 20.0)):
        once, epoch = measured.published[name]
        after, events = measured.after[name], measured.sizes[name].events
        prepared = median(run.worker_cpu + run.driver_cpu for run in measured.runs[name, 1])
        assembled = after["first epoch CPU"] + (epochs - 1) * after["later epoch CPU"]
        ours = prepared + after["plan CPU"] + assembled
        theirs = events * (once + epochs * epoch)
        title = f"{name}, {epochs} epoch{'s' if epochs > 1 else ''}"
        lines += [
            f"| published, {title} | {theirs / events * 1e6:.0f} | {theirs:,.0f} |",
            f"| ours: prepare {prepared:.0f}, plan {after['plan CPU']:.0f}, "
            f"assemble {assembled:.0f} | {ours / events * 1e6:.1f} "
            f"| {ours:,.0f} |",
        ]
        ratio = theirs / ours
        ratios.append(
            floors.row(f"{title}: ratio (floor {minimum:g})", ratio, minimum, f"{ratio:.1f}")
        )
    return [*lines, "", "| | |", "|---|---|", *ratios, ""]


def _preparations(measured: Measurements) -> list[str]:
    """Speed and memory of every run of ``prepare``."""
    lines = [
        "## Preparing",
        "",
        "| | workers | s | events/s | read MB/s | decode frames/s | finish events/s "
        "| CPU s: workers | driver | server | workers waiting for a core |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, workers), turns in measured.runs.items():
        size = measured.sizes[name]
        for run in turns:
            by_step = run.by_step
            frames = f"{size.frames / by_step['DecodeImages'].seconds:,.0f}" if size.frames else ""
            finish = f"{size.events / by_step['FinishShard'].seconds:,.0f}" if size.frames else ""
            lines.append(
                f"| {name}: {size.events:,} events, {size.frames:,} frames | {workers} "
                f"| {run.seconds:.1f} | {size.events / run.seconds:,.0f} "
                f"| {size.event_bytes / 1e6 / by_step['ReadShard'].seconds:.1f} "
                f"| {frames} | {finish} "
                f"| {run.worker_cpu:.0f} | {run.driver_cpu:.0f} | {run.server_cpu:.0f} "
                f"| {run.in_queue:.1f} s |"
            )
    lines += ["", "Memory of driver and workers in MiB, at each tenth of the run:", ""]
    lines += [
        f"- {name}, {workers} workers: "
        + ", ".join(f"{value / 2**20:,.0f}" for value in run.memory)
        for (name, workers), (run, *_) in measured.runs.items()
    ]
    return lines


def _scaling(measured: Measurements, floors: Floors) -> list[str]:
    """Two workers compared with one, and memory with five times the events."""
    lines = ["", "| | |", "|---|---|"]
    for name in ("plain", "images"):
        one, two = measured.runs[name, 1], measured.runs[name, 2]
        work = median(run.worker_cpu for run in one) / median(run.worker_cpu for run in two)
        clock = median(run.seconds for run in one) / (2 * median(run.seconds for run in two))
        server_share = median((run.server_cpu + run.driver_cpu) / (2 * run.seconds) for run in two)
        lines += [
            floors.row(
                f"{name}, two workers compared with one: work per CPU second of a worker "
                "(floor 0.85)",
                work,
                0.85,
                f"{work:.2f}",
            ),
            f"| {name}, the same by wall-clock time; server and driver, which have no separate "
            f"core, use {server_share:.0%} of the two cores | {clock:.2f} |",
        ]
    growth = max(measured.runs["images", 2][0].memory) / max(measured.runs["few", 2][0].memory)
    lines.append(
        floors.row(
            "peak memory of five times the events (at most 1.2)", 1.2 / growth, 1.0, f"{growth:.2f}"
        )
    )
    return lines


def _planning_and_assembling(measured: Measurements, floors: Floors) -> list[str]:
    """Cost of another Delta, and speed of assembling."""
    after = measured.after
    shares = {
        name: after[name]["another Delta"] / median(run.seconds for run in measured.runs[name, 2])
        for name in ("images", "plain")
    }
    return [
        floors.row(
            "planning for another Delta, share of the first preparation, images (below 2 %)",
            0.02 / shares["images"],
            1.0,
            f"{shares['images']:.2%}: {after['images']['another Delta']:.1f} s",
        ),
        f"| the same without images | {shares['plain']:.2%} |",
        floors.row(
            "assembling, tokens per second of one core, row groups in memory, no images "
            "(floor 5 M)",
            after["plain"]["tokens/s in memory"],
            5e6,
            f"{after['plain']['tokens/s in memory'] / 1e6:.1f} M",
        ),
        *(
            f"| {title}, {name} | {seconds['tokens'] / seconds[key] / 1e6:.1f} M tokens/s |"
            for name, seconds in after.items()
            for title, key in (
                ("random order, first epoch, by wall-clock time", "first epoch"),
                ("the same by CPU time", "first epoch CPU"),
                ("later epochs, from the disk cache, by wall-clock time", "later epoch"),
            )
        ),
    ]


def _limits(measured: Measurements, floors: Floors) -> list[str]:
    """Speed of single parts in one process, and the share of it that ``prepare`` reaches."""
    sizes, runs = measured.sizes, measured.runs
    event_size, image_size = sizes["plain"].event_bytes / 1e6, sizes["images"].image_bytes / 1e6
    reading, decoding = runs["plain", 1], runs["images", 1]
    parts = {
        "event files, MB": ("ReadShard", reading, event_size),
        "JSON parse (orjson), MB": ("ReadShard", reading, event_size),
        CONVERT: ("ReadShard", reading, event_size),
        "image files, MB": ("DecodeImages", decoding, image_size),
        "JPEG decode and resize, frames": ("DecodeImages", decoding, sizes["images"].frames),
    }
    rows: list[str] = []
    per_cpu: dict[str, float] = {}
    for name, alone in measured.alone.items():
        busy = measured.busy[name]
        if name not in parts:
            rows.append(f"| {name} | {alone:,.0f} | {busy:,.0f} | | |")
            continue
        step, prepared, amount = parts[name]
        times = [run.by_step[step] for run in prepared]
        by_clock = amount / median(time.seconds for time in times)
        by_cpu = amount / median(time.worker_cpu for time in times)
        per_cpu[name] = by_cpu / alone
        rows.append(
            f"| {name} | {alone:,.0f} | {busy:,.0f} | {by_clock:,.0f} ({by_clock / alone:.0%}) "
            f"| {by_cpu:,.0f} ({by_cpu / alone:.0%}; {by_cpu / busy:.0%}) |"
        )
    return [
        "",
        "## Limits: single parts in one process",
        "",
        "One process alone does so much in a second, and so much in a CPU second while another",
        "process does the same: a core is slower while the other one works, as it does while",
        "`prepare` runs. By wall-clock time the server takes a part of the two cores; the last",
        "column divides by the CPU seconds of the worker, its start included, with the shares of",
        "the first and of the second column.",
        "",
        "| part | alone, per second | both cores busy, per CPU second "
        "| prepare, one worker, per second | per CPU second |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "| | |",
        "|---|---|",
        *(
            floors.row(
                f"{name} of a CPU second of a worker, of the part alone (floor {minimum:.0%})",
                per_cpu[name],
                minimum,
                f"{per_cpu[name]:.0%}",
            )
            for name, minimum in (
                ("JSON parse (orjson), MB", 0.45),
                ("JPEG decode and resize, frames", 0.6),
            )
        ),
    ]


HEAD = """# Preparing, planning and assembling

`make bench-prepare`; {machine}.

Real danmaku (92 videos, 130,198 comments), copied under new names, with generated frames of 480 x
270 pixels: {sizes.events:,} events, {sizes.frames:,} frames, {sizes.event_bytes:,} bytes of events
and {sizes.image_bytes:,} of images, on a SeaweedFS server on the same machine, which shares the two
cores. Copies repeat the texts of the first copy, so a process tokenises most texts once for all
copies that it reads. Every run has a new driver and new workers; their start (about five seconds)
is included. Without images there are twice as many copies. The speed of the machine varies by a
third between runs.

The published style is measured on a sample in the same run and scaled up: per event one tokenizer
call and one check for the image; per epoch all samples are tokenised, and every image is read and
decoded. Both sides are compared by the CPU time of their own processes, because the server, which
both wait for, has no separate core here.

"""
