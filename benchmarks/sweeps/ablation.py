"""The paper's ablation of Delta, with LoRA ranks, on bullet comments and flights.

    make ablation        hours; goes on where it stopped

For each set a tiny base is trained on uncompressed sequences; then ``tune/configs/ablation_*.toml``
is swept from it; at rank 16, the paper's, with two more seeds, and once more with ``relative``
compression, the scale-free one. Trials are judged by forecasts of the validation split, all of the
same events. Writes ``ablation.md`` and the sweeps' figures beside this file. Danmaku need
MMTPP_TEST_DATA.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import finish, machine
from benchmarks.stack import own_stack
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepare import prepare
from mmtpp.data.settings import assemble_settings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.runtime.logs import start_logging
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import join, read_bytes
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.run_sweep import run
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_table import Row, markdown_table
from mmtpp.train.launch import pretrain

HERE = Path(__file__).parent
RESULT = HERE / "ablation.md"
HOME = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "ablation"
CONFIGS = HERE.parents[1] / "tune" / "configs"
BASE_STEPS, BASE_RATE = 600, 6e-3
RELATIVE = (0.05, 0.1, 0.2, 0.5, 1.0)
RANK = 16  # the paper's
MORE_SEEDS = (1, 2)
DELTA, LORA = "compression.delta", "lora.rank"
NLL, RMSE, MAE, ACCURACY = (
    f"evaluate/{name}"
    for name in ("joint/nll_nats_per_event", "time/rmse_s", "time/mae_s", "type/accuracy")
)
SHOWN = {
    NLL: "NLL (nats/event)",
    RMSE: "RMSE (s)",
    MAE: "MAE (s)",
    ACCURACY: "type accuracy",
    "data/compressed_fraction": "events compressed",
    "data/tokens_per_event": "tokens an event",
    "data/events_per_context": "events a context",
}
FIGURES = ("by_compression_delta", "by_lora_rank", "all_settings", "pareto")


def sources() -> dict[str, dict[str, object]]:
    """Settings of the sources there are, by set."""
    found: dict[str, dict[str, object]] = {
        "flights": {"source.kind": "flights", "source.uri": "s3://mmtpp/flights/raw"}
    }
    danmaku = Path(os.environ.get("MMTPP_TEST_DATA", "")).absolute() / "danmaku_bilibili_xml"
    if danmaku.is_dir():
        found["danmaku"] = {"source.kind": "danmaku", "source.uri": str(danmaku)}
    return found


def train_base(sweep: Sweep, source: dict[str, object]) -> tuple[RunConfig, str]:
    """Prepare the store, train every weight of a tiny model without compression; its settings and
    its folder."""
    config = with_values(
        sweep.config,
        {
            **source,
            "compression.strategy": "none",
            "lora.rank": 0,
            "window.overlap_fraction": 0.0,
            "training.num_steps": BASE_STEPS,
            "training.num_workers": 2,
            "training.learning_rate": BASE_RATE,
            "training.loss_weights": {"text": 0.2},
        },
    )
    prepare(config)
    return config, str(pretrain(config)["model_uri"])


def median_interval(config: RunConfig) -> str:
    """Of the training split, with its unit: what Deltas are multiples of."""
    manifest = load_manifest(config.store.uri)
    settings = assemble_settings(config, manifest, split="train")
    reader = StoreReader(settings.store)
    intervals = [
        each.events.intervals[: each.span("train")[1]][1:]  # the first event has none
        for each in reader.sequences(reader.files())
    ]
    median = float(np.median(np.concatenate(intervals)))
    return f"{median:,.4g} x {manifest.seconds_per_unit:g} s"


@dataclass(frozen=True, slots=True)
class Swept:
    """Results of a set's sweeps.

    Attributes:
        config: of the base.
        ranks: Delta x rank, of one seed.
        seeds: Delta at ``RANK``, of the other seeds.
        relative: Delta of relative compression at ``RANK``.
    """

    config: RunConfig
    ranks: dict[str, Any]
    seeds: dict[str, Any]
    relative: dict[str, Any]


def sweep_set(name: str, source: dict[str, object]) -> Swept:
    """Train the base and run the sweeps that are not finished yet."""
    file = CONFIGS / f"ablation_{name}.toml"
    config, base = train_base(load_sweep(file, []), source)
    path, rank = f"model.path={base}", f"space.{LORA}=[{RANK}]"
    ranks = run(load_sweep(file, [path]))
    more = [f"sweep.name=seeds-{name}", f"space.training.seed={list(MORE_SEEDS)}"]
    seeds = run(load_sweep(file, [path, rank, *more]))
    scaled = [
        f"sweep.name=relative-{name}",
        "compression.strategy=relative",
        f"space.{DELTA}={list(RELATIVE)}",
    ]
    relative = run(load_sweep(file, [path, rank, *scaled]))
    return Swept(config, ranks, seeds, relative)


def finished(result: dict[str, Any]) -> list[Row]:
    """Trials that came to their end; ``section`` counts the others."""
    return [row for row in result["trials"] if row["status"] == "finished"]


def by_setting(rows: Sequence[Row], key: str, *, spread: bool = False) -> list[Row]:
    """Mean of the rows with each value of a setting, with their standard deviation if asked for."""
    found: list[Row] = []
    for value in sorted({float(str(row[key])) for row in rows}):
        group = [row for row in rows if float(str(row[key])) == value]
        row: Row = {key: f"{value:g}", "trials": len(group)}
        for name, title in SHOWN.items():
            numbers = [float(str(each[name])) for each in group]
            # what the data alone decide does not vary
            differ = spread and len(set(np.round(numbers, 9))) > 1
            about = f" ± {np.std(numbers, ddof=1):.2g}" if differ else ""
            row[title] = f"{np.mean(numbers):.4g}{about}"
        found.append(row)
    return found


def grid(rows: Sequence[Row], metric: str) -> list[Row]:
    """A metric of every trial: a line for each Delta, a column for each rank."""
    cells = {(row[DELTA], row[LORA]): float(str(row[metric])) for row in rows}
    ranks = sorted({int(str(rank)) for _, rank in cells})
    return [
        {
            DELTA: f"{delta:g}",
            **{
                f"rank {rank}": f"{cells[delta, rank]:.4f}"
                for rank in ranks
                if (delta, rank) in cells
            },
        }
        for delta in sorted({float(str(delta)) for delta, _ in cells})
    ]


def section(name: str, swept: Swept) -> str:
    """Markdown of a set."""

    def text(table: list[Row]) -> str:
        return markdown_table(table, list(table[0]))

    results = (swept.ranks, swept.seeds, swept.relative)
    rows = finished(swept.ranks)
    at_rank = [row for row in rows if row[LORA] == RANK] + finished(swept.seeds)
    return "\n\n".join(
        [
            f"## {name}",
            f"The median interval of the training split is {median_interval(swept.config)}. Trials "
            f"that failed: {sum(each['failed'] for each in results)} of "
            f"{sum(len(each['trials']) for each in results)}.",
            f"By Delta at rank {RANK}, mean ± standard deviation of {1 + len(MORE_SEEDS)} seeds:",
            text(by_setting(at_rank, DELTA, spread=True)),
            "NLL of each Delta and rank, one seed:",
            text(grid(rows, NLL)),
            "By rank, mean over Deltas:",
            text(by_setting(rows, LORA)),
            f"Relative compression at rank {RANK}, one seed:",
            text(by_setting(finished(swept.relative), DELTA)),
            f"![Delta]({name}_by_compression_delta.png)",
            f"![rank]({name}_by_lora_rank.png)",
        ]
    )


def main() -> int:
    """Sweep, print, write."""
    start_logging()
    chosen = sys.argv[1:]
    parts: list[str] = []
    with own_stack(HOME):
        for name, source in sources().items():
            if chosen and name not in chosen:
                continue
            swept = sweep_set(name, source)
            parts.append(section(name, swept))
            for figure in FIGURES:
                content = read_bytes(join(swept.ranks["report_uri"], "figures", f"{figure}.png"))
                (HERE / f"{name}_{figure}.png").write_bytes(content)
    head = (
        "# Delta and LoRA rank\n\n"
        f"`make ablation`; {machine('torch', 'ray', used='both used')}. The tiny base of each set "
        f"was trained for {BASE_STEPS} steps on uncompressed sequences, each trial adapts it, with "
        "alpha four times the rank as in the paper. Forecasts of the validation split, the same "
        "events for all."
    )
    return finish("\n\n".join([head, *parts]) + "\n", RESULT)


if __name__ == "__main__":
    sys.exit(main())
