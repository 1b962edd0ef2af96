"""The tables of the benchmark of ``prepare``, and the missed floors."""

from dataclasses import dataclass
from statistics import median

from benchmarks.measure import machine
from benchmarks.replicate import Published

EPOCHS = 3  # number of epochs in the comparison with images


@dataclass(frozen=True)
class Preparation:
    """One run of ``prepare``.

    Attributes:
        workers: Number of worker processes.
        seconds: Wall-clock seconds.
        by_step: Wall-clock seconds of each step, by its name.
        memory: Bytes of the driver and the workers at the end of each tenth of the run.
        worker_cpu: CPU seconds of the workers.
        in_queue: Seconds that workers were ready to run but had no CPU.
        driver_cpu: CPU seconds of the driver.
        server_cpu: CPU seconds of the S3 server.
    """

    workers: int
    seconds: float
    by_step: dict[str, float]
    memory: list[int]
    worker_cpu: float
    in_queue: float
    driver_cpu: float
    server_cpu: float


def report(
    sizes: dict[str, Published],
    alone: dict[str, float],
    published: dict[str, tuple[float, float]],
    runs: dict[tuple[str, int], list[Preparation]],
    after: dict[str, dict[str, float]],
) -> tuple[str, list[str]]:
    """Markdown, and the floors that were missed."""
    missed: list[str] = []

    def floor(name: str, value: float, least: float, shown: str) -> str:
        if value < least:
            missed.append(f"{name}: {shown}")
        return f"| {name} | **{shown}** |"

    lines = [
        "## Against the published style, by processor time",
        "",
        "| | us an event | all, CPU s |",
        "|---|---|---|",
    ]
    ratios = []
    for name, epochs, least in (("plain", 1, 10.0), ("images", EPOCHS, 20.0)):
        once, epoch = published[name]
        done, events = after[name], sizes[name].events
        prepared = median(run.worker_cpu + run.driver_cpu for run in runs[name, 1])
        assembled = done["first epoch CPU"] + (epochs - 1) * done["later epoch CPU"]
        ours = prepared + done["plan CPU"] + assembled
        theirs = events * (once + epochs * epoch)
        what = f"{name}, {epochs} epoch{'s' if epochs > 1 else ''}"
        lines += [
            f"| published, {what} | {theirs / events * 1e6:.0f} | {theirs:,.0f} |",
            f"| ours: prepare {prepared:.0f}, plan {done['plan CPU']:.0f}, "
            f"assemble {assembled:.0f} | {ours / events * 1e6:.1f} "
            f"| {ours:,.0f} |",
        ]
        ratios.append(
            floor(f"{what}: ratio (floor {least:g})", theirs / ours, least, f"{theirs / ours:.1f}")
        )
    lines += [
        "",
        "| | |",
        "|---|---|",
        *ratios,
        "",
        "## Preparing",
        "",
        "| | workers | s | events/s | read MB/s | decode frames/s | finish events/s "
        "| CPU s: workers | driver | server | workers ready, without a core |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, workers), turns in runs.items():
        size = sizes[name]
        for run in turns:
            by_step = run.by_step
            frames = f"{size.frames / by_step['DecodeImages']:,.0f}" if size.frames else ""
            finish = f"{size.events / by_step['FinishShard']:,.0f}" if size.frames else ""
            lines.append(
                f"| {name}: {size.events:,} events, {size.frames:,} frames | {workers} "
                f"| {run.seconds:.1f} | {size.events / run.seconds:,.0f} "
                f"| {size.event_bytes / 1e6 / by_step['ReadShard']:.1f} | {frames} | {finish} "
                f"| {run.worker_cpu:.0f} | {run.driver_cpu:.0f} | {run.server_cpu:.0f} "
                f"| {run.in_queue:.1f} s |"
            )
    lines += ["", "Memory, MiB, of driver and workers at each tenth of the run:", ""]
    lines += [
        f"- {name}, {workers} workers: "
        + ", ".join(f"{value / 2**20:,.0f}" for value in run.memory)
        for (name, workers), (run, *_) in runs.items()
    ]
    lines += ["", "| | |", "|---|---|"]
    for name in ("plain", "images"):
        one, two = runs[name, 1], runs[name, 2]
        work = median(run.worker_cpu for run in one) / median(run.worker_cpu for run in two)
        clock = median(run.seconds for run in one) / (2 * median(run.seconds for run in two))
        others = median((run.server_cpu + run.driver_cpu) / (2 * run.seconds) for run in two)
        lines += [
            floor(
                f"{name}, two processes against one: work done by a second of a worker's "
                "processor (floor 0.85)",
                work,
                0.85,
                f"{work:.2f}",
            ),
            f"| {name}, the same by the clock; server and driver, without a core of their own, "
            f"take {others:.0%} of the two there are | {clock:.2f} |",
        ]
    growth = max(runs["images", 2][0].memory) / max(runs["few", 2][0].memory)
    shares = {
        name: after[name]["another Delta"] / median(run.seconds for run in runs[name, 2])
        for name in ("images", "plain")
    }
    lines += [
        floor(
            "peak memory of five times the events (at most 1.2)", 1.2 / growth, 1.0, f"{growth:.2f}"
        ),
        floor(
            "another Delta, share of the first preparation, images (below 2 %)",
            0.02 / shares["images"],
            1.0,
            f"{shares['images']:.2%}: {after['images']['another Delta']:.1f} s",
        ),
        f"| the same without images | {shares['plain']:.2%} |",
        floor(
            "assembling, tokens a second of one processor, row groups in memory, no images "
            "(floor 5 M)",
            after["plain"]["tokens/s in memory"],
            5e6,
            f"{after['plain']['tokens/s in memory'] / 1e6:.1f} M",
        ),
        *(
            f"| {what}, {name} | {done['tokens'] / done[key] / 1e6:.1f} M tokens/s |"
            for name, done in after.items()
            for what, key in (
                ("random order, first epoch, by the clock", "first epoch"),
                ("the same by processor time", "first epoch CPU"),
                ("later epochs, from the disk cache, by the clock", "later epoch"),
            )
        ),
        "",
        "## What bounds each part: one process, nothing else",
        "",
        "| | a second | reached |",
        "|---|---|---|",
    ]
    reading = median(run.by_step["ReadShard"] for run in runs["plain", 1])
    decoding = median(run.by_step["DecodeImages"] for run in runs["images", 1])
    event_rate = sizes["plain"].event_bytes / 1e6 / reading
    of_limit = {
        "event files, MB": event_rate,
        "JSON parse (orjson), MB": event_rate,
        "image files, MB": sizes["images"].image_bytes / 1e6 / decoding,
        "JPEG decode and resize, frames": sizes["images"].frames / decoding,
    }
    lines += [
        f"| {name} | {value:,.0f} | "
        + (f"{of_limit[name]:,.0f} ({of_limit[name] / value:.0%}) |" if name in of_limit else "|")
        for name, value in alone.items()
    ]
    head = HEAD.format(
        sizes=sizes["images"],
        machine=machine(
            "ray", "pyarrow", "pillow", "tokenizers", "orjson", used="shared with the server"
        ),
    )
    return head + "\n".join(lines) + "\n", missed


HEAD = """# Preparing, planning and assembling

`make bench-prepare`; {machine}.

Real danmaku (92 videos, 130,198 comments) copied under new names, with generated frames of 480 x
270 pixels: {sizes.events:,} events, {sizes.frames:,} frames, {sizes.event_bytes:,} bytes of events
and {sizes.image_bytes:,} of images, on a SeaweedFS server on the same machine, which takes its
share of the two cores. Copies repeat the texts of the first, so most texts are tokenised once for
all copies that a process reads. Every run is a new driver with new workers, whose start (some five
seconds) is counted. Without images there are twice as many copies. The machine's own speed varies
by a third between runs.

The published style is measured on a sample in the same run and scaled: per event a tokenizer call
and a look for the image, per epoch the samples tokenised and every event's image read and decoded
again. Both sides are compared by the processor time of their own processes, since the server, which
both wait for, has no core of its own here.

"""
