"""The ablation of Delta in the paper, combined with LoRA ranks, on danmaku and flights.

    make ablation        hours; resumes where it stopped

For each set, the benchmark trains a tiny base on uncompressed sequences and runs the sweep
``tune/configs/ablation_*.toml`` from this base. At rank 16, the rank of the paper, it repeats the
sweep with two more seeds, and once with ``relative`` compression, which does not depend on the time
scale. Trials are compared by their forecasts of the same events of the validation split. Writes
``ablation.md`` and the figures of the sweeps next to this file. Danmaku (bullet comments) need
MMTPP_TEST_DATA.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

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
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.runtime.logs import start_logging
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import join, read_bytes
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_table import markdown_table
from mmtpp.train.launch import pretrain

HERE = Path(__file__).parent
RESULT = HERE / "ablation.md"
HOME = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "ablation"
CONFIGS = HERE.parents[1] / "tune" / "configs"
BASE_STEPS, BASE_RATE = 600, 6e-3
RELATIVE = (0.05, 0.1, 0.2, 0.5, 1.0)
RANK = 16  # rank of the paper
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
    "data/tokens_per_event": "tokens per event",
    "data/events_per_context": "events per context",
}
FIGURES = ("by_compression_delta", "by_lora_rank", "all_settings", "pareto")


def sources() -> dict[str, dict[str, object]]:
    """Settings of the available sources, by data set."""
    sources: dict[str, dict[str, object]] = {
        "flights": {"source.kind": "flights", "source.uri": "s3://mmtpp/flights/raw"}
    }
    danmaku = Path(os.environ.get("MMTPP_TEST_DATA", "")).absolute() / "danmaku_bilibili_xml"
    if danmaku.is_dir():
        sources["danmaku"] = {"source.kind": "danmaku", "source.uri": str(danmaku)}
    return sources


def train_base(sweep: Sweep, source: dict[str, object]) -> tuple[RunConfig, str]:
    """Prepare the store and train all weights of a tiny model without compression.

    Returns:
        The settings and the folder of the model.
    """
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
    """Median interval of the training split with its unit, to compare Deltas with."""
    manifest = load_manifest(config.store.uri)
    settings = build_sample_settings(config.sample_sections, manifest, split="train")
    reader = StoreReader(settings.store)
    intervals = [
        sequence.events.intervals[: sequence.span("train")[1]][
            1:
        ]  # the first event has no interval
        for sequence in reader.sequences(reader.files())
    ]
    median = float(np.median(np.concatenate(intervals)))
    return f"{median:,.4g} x {manifest.seconds_per_unit:g} s"


@dataclass(frozen=True, slots=True)
class Swept:
    """Results of the sweeps of one data set.

    Attributes:
        config: Settings of the base.
        ranks: Result of the sweep over Delta and rank, with one seed.
        seeds: Result of the sweep over Delta at ``RANK``, with the other seeds.
        relative: Result of the sweep over Delta of relative compression at ``RANK``.
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
    ranks = run_sweep(load_sweep(file, [path]))
    more = [f"sweep.name=seeds-{name}", f"space.training.seed={list(MORE_SEEDS)}"]
    seeds = run_sweep(load_sweep(file, [path, rank, *more]))
    scaled = [
        f"sweep.name=relative-{name}",
        "compression.strategy=relative",
        f"space.{DELTA}={list(RELATIVE)}",
    ]
    relative = run_sweep(load_sweep(file, [path, rank, *scaled]))
    return Swept(config, ranks, seeds, relative)


def finished(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Finished trials of a sweep."""
    return [row for row in result["trials"] if row["status"] == "finished"]


def by_setting(
    rows: Sequence[dict[str, Any]], key: str, *, spread: bool = False
) -> list[dict[str, Any]]:
    """Means over the rows with the same value of a setting, optionally with standard deviations."""
    means: list[dict[str, Any]] = []
    for value in sorted({float(str(row[key])) for row in rows}):
        group = [row for row in rows if float(str(row[key])) == value]
        row: dict[str, Any] = {key: f"{value:g}", "trials": len(group)}
        for name, title in SHOWN.items():
            numbers = [float(str(trial[name])) for trial in group]
            # metrics of the data do not depend on the seed
            differ = spread and len(set(np.round(numbers, 9))) > 1
            error = f" ± {np.std(numbers, ddof=1):.2g}" if differ else ""
            row[title] = f"{np.mean(numbers):.4g}{error}"
        means.append(row)
    return means


def grid(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Table of a metric with one line per Delta and one column per rank."""
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
    """Markdown section of a data set."""

    def text(table: list[dict[str, Any]]) -> str:
        return markdown_table(table, list(table[0]))

    results = (swept.ranks, swept.seeds, swept.relative)
    rows = finished(swept.ranks)
    at_rank = [row for row in rows if row[LORA] == RANK] + finished(swept.seeds)
    return "\n\n".join(
        [
            f"## {name}",
            f"The median interval of the training split is {median_interval(swept.config)}. Trials "
            f"that failed: {sum(result['failed'] for result in results)} of "
            f"{sum(len(result['trials']) for result in results)}.",
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
    """Run the sweeps, print and write the results."""
    start_logging()
    selected = sys.argv[1:]
    parts: list[str] = []
    with own_stack(HOME):
        for name, source in sources().items():
            if selected and name not in selected:
                continue
            swept = sweep_set(name, source)
            parts.append(section(name, swept))
            for figure in FIGURES:
                content = read_bytes(join(swept.ranks["report_uri"], "figures", f"{figure}.png"))
                (HERE / f"{name}_{figure}.png").write_bytes(content)
    head = (
        "# Delta and LoRA rank\n\n"
        f"`make ablation`; {machine('torch', 'ray', used='both used')}. The tiny base of each set "
        f"was trained for {BASE_STEPS} steps on uncompressed sequences. Each trial adapts it, with "
        "alpha four times the rank, like in the paper. Metrics are of forecasts of the validation "
        "split, of the same events in all trials."
    )
    return finish("\n\n".join([head, *parts]) + "\n", RESULT)


if __name__ == "__main__":
    sys.exit(main())
