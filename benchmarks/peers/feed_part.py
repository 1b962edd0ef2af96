"""Feeding: rows per second, CPU time per row, time to the first row, and resuming in mid-epoch."""

import tempfile
from dataclasses import dataclass
from functools import partial

from benchmarks.peers.bench import Bench, errors, figure, markdown_table, ratio, values
from benchmarks.peers.feed_columns import STEP
from benchmarks.peers.trials import Record, Trial
from benchmarks.stack import danmaku_folder
from cluster.services import Stack

URI = "s3://mmtpp/peers"
OURS, HERE = "mmtpp, Ray tasks", "mmtpp, assembled in one process"
STREAMING, DATASETS = "MosaicML Streaming", "datasets"
MODULES = {OURS: "feed_ours", STREAMING: "feed_streaming", DATASETS: "feed_datasets"}
ENVIRONMENTS = {STREAMING: "streaming"}
WORKERS = (0, 2)  # worker processes of the peers' loaders
FLOOR = "(floor 2)"
SIZES = ((6, 2048), (1, 512))  # copies of the videos and tokens of a row; the second for a smoke

Records = dict[str, list[Record]]


@dataclass(frozen=True, slots=True)
class FeedRecords:
    """All trials of the part.

    Attributes:
        rows: The trial that wrote the store and the finished rows.
        shards: The trial that wrote the shards of MosaicML Streaming.
        epochs: Whole epochs, by feed.
        resumed: The rest of an epoch from a state, in a new process, by feed.
    """

    rows: Record
    shards: Record
    epochs: Records
    resumed: Records


def measure(bench: Bench) -> FeedRecords:
    """Run the trials, all on one S3 server."""
    bench.install(["streaming"])
    copies, max_tokens = SIZES[bench.smoke]
    folder = danmaku_folder()
    with bench.stack() as stack, tempfile.TemporaryDirectory() as cache:
        rows = bench.run(
            Trial("feed_rows", {"uri": URI, "copies": copies, "max_tokens": max_tokens}),
            {"folder": str(folder), "cache": cache},
        )
        shards = bench.run(
            Trial("feed_streaming", {"uri": URI, "writes": True}, environment="streaming")
        )
        if rows.error:
            return FeedRecords(rows, shards, {}, {})
        middle = max(STEP, rows.result["rows"] // 2 // STEP * STEP)
        run = partial(_run, bench, stack)
        epochs = bench.interleave(_epochs(max_tokens, middle), run)
        resumed = bench.interleave(_rests(epochs, max_tokens, middle), run)
    return FeedRecords(rows, shards, epochs, resumed)


def _run(bench: Bench, stack: Stack, trial: Trial) -> Record:
    """Run a trial; the CPU time of Ray's processes counts for this project."""
    ray_pid = int((stack.home / "ray.pid").read_text().split()[0])
    return bench.run(trial, {"ray_pid": ray_pid} if trial.module == "feed_ours" else None)


def _epochs(max_tokens: int, middle: int) -> dict[str, Trial]:
    """A whole epoch of every feed; the peers take a state in the middle."""
    ours = {"uri": URI, "max_tokens": max_tokens}
    trials = {
        OURS: Trial("feed_ours", ours),
        HERE: Trial("feed_ours", {**ours, "assembles_here": True}),
    }
    for name in (STREAMING, DATASETS):
        for workers in WORKERS:
            arguments = {"uri": URI, "workers": workers}
            if workers == 0:  # the state of one process is that of the loader
                arguments["state_after"] = middle
            trials[_with_workers(name, workers)] = Trial(
                MODULES[name], arguments, environment=ENVIRONMENTS.get(name, "")
            )
    return trials


def _with_workers(name: str, workers: int) -> str:
    return f"{name}, {workers} workers"


def _rests(epochs: Records, max_tokens: int, middle: int) -> dict[str, Trial]:
    """The rest of the epoch after ``middle`` rows, from the state that the epoch took."""
    trials = {OURS: Trial("feed_ours", {"uri": URI, "max_tokens": max_tokens, "first_row": middle})}
    for name in (STREAMING, DATASETS):
        first = epochs[_with_workers(name, 0)][0]
        if state := first.result.get("state"):
            arguments = {"uri": URI, "state": state}
            trials[name] = Trial(MODULES[name], arguments, environment=ENVIRONMENTS.get(name, ""))
    return trials


def section(records: FeedRecords) -> list[str]:
    """Lines of the report."""
    if records.rows.error:
        return ["## Feeding", "", f"The rows could not be written: `{records.rows.error}`"]
    rows, shards = records.rows.result, records.shards.result
    peers = [name for name in records.epochs if name not in (OURS, HERE)]
    return [
        "## Feeding",
        "",
        f"{rows['rows']:,} packed rows, {rows['tokens']:,} tokens, {rows['events']:,} danmaku, "
        "text only, from one S3 server on this machine. mmtpp reads the event store and assembles "
        "the rows, so that another context length, template or Delta needs no new files. The peers "
        "read the same finished rows: Parquet for `datasets`, MDS for Streaming. The CPU time is "
        "that of all processes of a feed, with Ray's head; that of the server is left out.",
        "",
        f"Before the first epoch: mmtpp prepares the store and the plan in {rows['prepare_s']:.1f} "
        f"s. The peers need the rows, assembled in {rows['finished_rows_s']:.1f} s by mmtpp, and "
        f"Streaming its shards, {shards.get('seconds', 0):.1f} s.",
        "",
        *markdown_table(
            ("feed", "rows/s", "CPU ms per row", "first row, s", "rows that differ"),
            [_epoch_line(name, records.epochs) for name in records.epochs],
        ),
        "",
        *_ratio_lines(records.epochs, peers),
        "Resumed in a new process in mid-epoch, with an empty local cache:",
        "",
        *markdown_table(
            ("feed", "next row, s (floor: at most 5)", "the sequence of rows continues exactly"),
            [
                (name, figure(values(of_name, "first_s"), 2), _continuation(name, records))
                for name, of_name in records.resumed.items()
            ],
        ),
        "",
        *errors({**records.epochs, **{f"{k}, resumed": v for k, v in records.resumed.items()}}),
    ]


def _epoch_line(name: str, epochs: Records) -> tuple[str, ...]:
    of_name = epochs[name]
    return (
        name,
        figure(values(of_name, "rows_per_s")),
        figure(values(of_name, "cpu_ms_per_row"), 2),
        figure(values(of_name, "first_s"), 2),
        _differences(of_name, epochs[OURS]),
    )


def _differences(of_name: list[Record], ours: list[Record]) -> str:
    """Whether a feed delivered the same rows as this project's, in any order."""
    complete = [record.result for record in of_name if record.result]
    if not complete or not ours[0].result:
        return "-"
    mine, other = ours[0].result, complete[0]
    missing = set(mine["ids"]) ^ set(other["ids"])
    if missing or len(other["ids"]) != len(mine["ids"]):
        return f"{len(missing)} missing, {len(other['ids'])} rows"
    return "none" if mine["checksum"] == other["checksum"] else "content differs"


def _ratio_lines(epochs: Records, peers: list[str]) -> list[str]:
    lines = []
    for ours in (OURS, HERE):
        if (rate := ratio(epochs, ours, peers, "rows_per_s")) is not None:
            lines.append(f"- {ours}, rows/s over {rate[0]}: **{rate[1]}**")
        per_cpu = {
            name: [
                Record(record.trial, {"rows_per_cpu_s": 1000 / record.result["cpu_ms_per_row"]})
                for record in of_name
                if record.result
            ]
            for name, of_name in epochs.items()
        }
        if (rate := ratio(per_cpu, ours, peers, "rows_per_cpu_s")) is not None:
            lines.append(f"- {ours}, rows per CPU second over {rate[0]}: **{rate[1]}** {FLOOR}")
    return [*lines, ""]


def _continuation(name: str, records: FeedRecords) -> str:
    """Whether the rows after the state are those of the uninterrupted epoch, in its order."""
    whole = records.epochs[OURS if name == OURS else _with_workers(name, 0)][0].result
    rests = [record.result["ids"] for record in records.resumed[name] if record.result]
    if not whole or not rests:
        return "-"
    expected = whole["ids"][len(whole["ids"]) - len(rests[0]) :]
    if all(rest == expected for rest in rests) and len(rests[0]) < len(whole["ids"]):
        return "yes"
    middle = _middle(records)
    lost = len(set(whole["ids"][middle:]) - set(rests[0]))
    repeated = len(set(whole["ids"][:middle]) & set(rests[0]))
    return f"no: {lost} rows of the rest missing, {repeated} rows again"


def _middle(records: FeedRecords) -> int:
    return max(STEP, records.rows.result["rows"] // 2 // STEP * STEP)
