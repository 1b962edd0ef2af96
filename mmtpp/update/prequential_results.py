"""Results of the strategies of a prequential evaluation: their files, metrics and table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from mmtpp.evaluate.scores.paired_difference import Difference, paired_difference
from mmtpp.storage.parquet import read_table, write_table
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes

FROZEN = "frozen"
"""Strategy from which the differences of the others are counted."""


@dataclass(frozen=True, slots=True)
class PeriodScores:
    """Forecasts of the events of one period.

    Attributes:
        start: Start of the period, in the source's unit.
        losses: Sums by sequence, ``sequence_losses.LOSS_SCHEMA``; a sequence without events in the
            period has no row.
    """

    start: float
    losses: pa.Table

    @property
    def num_events(self) -> int:
        """Number of events."""
        return int(self.losses["events"].to_numpy().sum())

    @property
    def nll(self) -> float:
        """Nats an event of time and type; NaN without events."""
        return float(_joint(self.losses).sum() / self.num_events) if self.num_events else np.nan


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """What one strategy forecast.

    Attributes:
        name: Name of the strategy.
        scores: Forecasts of each period, each made before the period was learned.
        past: Forecasts of the test events of the first period, made after the last one was learned.
        seconds: CPU seconds of learning from each period.
    """

    name: str
    scores: list[PeriodScores]
    past: PeriodScores
    seconds: list[float]

    @property
    def losses(self) -> pa.Table:
        """Sums by period and sequence."""
        return pa.concat_tables([period.losses for period in self.scores])


@dataclass(frozen=True, slots=True)
class Summary:
    """The comparison of the strategies.

    Attributes:
        metrics: Metrics over all periods, by name.
        metrics_by_period: Metrics of each period, by name.
        markdown: The same as tables.
    """

    metrics: dict[str, float]
    metrics_by_period: list[dict[str, float]]
    markdown: str


def save_result(result: StrategyResult, run_uri: str) -> None:
    """Write the result of a strategy into the folder of a run."""
    tables = [
        period.losses.append_column("period", pa.array([index] * len(period.losses), pa.int32()))
        for index, period in enumerate([*result.scores, result.past])
    ]
    write_table(_path(run_uri, result.name, "parquet"), pa.concat_tables(tables))
    starts = [period.start for period in [*result.scores, result.past]]
    record = {"starts": starts, "seconds": result.seconds}
    # written last: a result without it is not finished
    write_bytes(_path(run_uri, result.name, "json"), json.dumps(record).encode())


def find_strategy_result(run_uri: str, name: str) -> StrategyResult | None:
    """The result of a strategy that an earlier run finished; None if there is none."""
    uri = _path(run_uri, name, "json")
    if not exists(uri):
        return None
    record = json.loads(read_bytes(uri))
    table = read_table(_path(run_uri, name, "parquet"))
    periods = table["period"].to_numpy()
    *scores, past = [
        PeriodScores(start, table.filter(pa.array(periods == index)).drop_columns(["period"]))
        for index, start in enumerate(record["starts"])
    ]
    return StrategyResult(name, scores, past, record["seconds"])


def save_summary(summary: Summary, run_uri: str) -> None:
    """Write metrics and tables into the folder of a run."""
    write_bytes(join(run_uri, "metrics.json"), json.dumps(summary.metrics, indent=2).encode())
    write_bytes(join(run_uri, "prequential.md"), summary.markdown.encode())


def summarise(
    results: Sequence[StrategyResult], *, seconds_per_unit: float | None, seed: int
) -> Summary:
    """Compare the strategies.

    Args:
        results: Results of the strategies on the same events, at least one.
        seconds_per_unit: Number of seconds in the source's unit; None for times that are no dates.
        seed: Seed of the bootstrap.
    """
    differences = _differences(results, seed=seed)
    metrics: dict[str, float] = {}
    for result in results:
        values = {
            "joint_nll_nats_per_event": _mean(_joint(result.losses), result.losses),
            "time_nll_nats_per_event": _mean(result.losses["time_nll"].to_numpy(), result.losses),
            "past_joint_nll_nats_per_event": result.past.nll,
            "learning_cpu_s": sum(result.seconds),
        }
        if result.name in differences:
            difference = differences[result.name]
            values |= {
                "minus_frozen_nats_per_event": difference.value,
                "minus_frozen_low": difference.low,
                "minus_frozen_high": difference.high,
            }
        metrics |= {
            f"prequential/{result.name}/{name}": value
            for name, value in values.items()
            if np.isfinite(value)
        }
    by_period = [
        {
            f"prequential/{result.name}/period_joint_nll_nats_per_event": result.scores[index].nll
            for result in results
            if result.scores[index].num_events
        }
        for index in range(len(results[0].scores))
    ]
    markdown = _tables(results, differences, seconds_per_unit=seconds_per_unit)
    return Summary(metrics, by_period, markdown)


def _differences(results: Sequence[StrategyResult], *, seed: int) -> dict[str, Difference]:
    """Each strategy minus the frozen expert, with intervals over sequences."""
    sums = {result.name: _sums_by_sequence(result.losses) for result in results}
    if FROZEN not in sums:
        return {}
    frozen, num_events = sums[FROZEN]
    return {
        name: paired_difference(joint, frozen, num_events, seed=seed)
        for name, (joint, _) in sums.items()
        if name != FROZEN
    }


def _sums_by_sequence(losses: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(S,) losses of time and type and (S,) numbers of events of the sequences, by their ids."""
    names = losses["sequence_id"].to_numpy(zero_copy_only=False)
    _, place = np.unique(names, return_inverse=True)
    return np.bincount(place, _joint(losses)), np.bincount(place, losses["events"].to_numpy())


def _tables(
    results: Sequence[StrategyResult],
    differences: dict[str, Difference],
    *,
    seconds_per_unit: float | None,
) -> str:
    lines = [
        "| strategy | nats per event | minus frozen [95 % interval] | first period after the last, "
        "test sequences | CPU seconds of learning |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        difference = differences.get(result.name)
        lines.append(
            f"| {result.name} | {_mean(_joint(result.losses), result.losses):.3f} "
            f"| {_interval(difference) if difference else ''} | {result.past.nll:.3f} "
            f"| {sum(result.seconds):.1f} |"
        )
    names = [result.name for result in results]
    lines += [
        "",
        f"| period from (UTC) | events | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for index, period in enumerate(results[0].scores):
        values = " | ".join(f"{result.scores[index].nll:.3f}" for result in results)
        start = f"{period.start:,.0f}"
        if seconds_per_unit is not None:
            moment = datetime.fromtimestamp(period.start * seconds_per_unit, UTC)
            start = f"{moment:%Y-%m-%d %H:%M}"
        lines.append(f"| {start} | {period.num_events:,} | {values} |")
    return "\n".join(lines) + "\n"


def _interval(difference: Difference) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _joint(losses: pa.Table) -> np.ndarray:
    """Losses of time and type together, by row."""
    return losses["time_nll"].to_numpy() + losses["type_nll"].to_numpy()


def _mean(sums: np.ndarray, losses: pa.Table) -> float:
    return float(sums.sum() / losses["events"].to_numpy().sum())


def _path(run_uri: str, name: str, suffix: str) -> str:
    return join(run_uri, f"{name}.{suffix}")
