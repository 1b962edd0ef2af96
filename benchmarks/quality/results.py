"""Trials of the quality benchmark, their budget, and the file of finished trials."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.differences import table_path, write_sums
from benchmarks.quality.easytpp import DRAWS, SCORES_TICKS, SPREADS_TICKS
from benchmarks.quality.report import read_records
from benchmarks.quality.variants import PLAIN


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of one trial.

    Attributes:
        max_tokens: Length of a packed row, in tokens; a step trains on one row.
        steps: Number of steps of stage 1 and of stage 2 for the plain model.
        short_steps: Number of steps of both stages for the variants, and for the plain model that
            they are compared with.
        learning_rate: Learning rate of both stages.
        neural_s: CPU seconds of training for a neural baseline, about those of the plain model.
        expert_steps: Largest number of updates of a network of the temporal expert.
        soft_steps: Number of steps of a model of soft tokens.
    """

    max_tokens: int
    steps: tuple[int, int]
    short_steps: tuple[int, int]
    learning_rate: float
    neural_s: float
    expert_steps: int
    soft_steps: int


BUDGET = Budget(1024, (2000, 400), (800, 200), 3e-3, 420.0, 5000, 400)
SMALL = Budget(512, (6, 4), (6, 4), 3e-3, 1.0, 6, 16)  # only checks that the benchmark runs


@dataclass(frozen=True, slots=True)
class Trial:
    """One model or variant on one data set with one seed.

    Attributes:
        set: Name of the data set.
        kind: ``soft``, ``expert``, ``mixture``, ``ours``, ``neural``, ``control`` or ``classical``.
        name: Name of the variant or the model; empty for the one trial of all classical models.
        seed: Seed of the initialisation and the order of the data.
    """

    set: str
    kind: str
    name: str
    seed: int

    def share(self, budget: Budget) -> list[float] | None:
        """The part of the budget that the trial uses; None for classical models."""
        if self.kind == "neural":
            return [budget.neural_s]
        if self.kind == "expert":
            return [budget.expert_steps]
        if self.kind == "soft":
            return [budget.max_tokens, budget.soft_steps]
        if self.kind == "mixture":
            return [budget.max_tokens, *budget.steps, budget.learning_rate, budget.expert_steps]
        steps = budget.steps if self.name == PLAIN else budget.short_steps
        return [budget.max_tokens, *steps, budget.learning_rate] if self.kind == "ours" else None


def _is_current(record: dict[str, Any]) -> bool:
    """Whether a neural trial was scored as trials are scored now."""
    metrics = record["metrics"]
    return (
        metrics.get("draws") == DRAWS
        and (record["name"] != SCORES_TICKS or metrics.get("scores_ticks") == 1.0)
        and (record["name"] not in SPREADS_TICKS or "spreads_ticks" in metrics)
    )


def finished_records(
    records: list[dict[str, Any]], trial: Trial, budget: Budget, *, path: Path
) -> list[dict[str, Any]]:
    """The records of a trial among those of a file.

    Args:
        records: All records of the file.
        trial: The trial; ``classical`` is one trial with the records of all its models.
        budget: The present budget.
        path: The file, for the error.

    Raises:
        ValueError: The trial was run with another budget, so it cannot be compared.
    """
    finished = [
        record
        for record in records
        if (record["set"], record["kind"]) == (trial.set, trial.kind)
        and (
            trial.kind == "classical"
            or (record["name"], record["seed"]) == (trial.name, trial.seed)
        )
    ]
    for record in finished:
        if record.get("budget") != trial.share(budget):
            raise ValueError(
                f"{path}: {trial} was run with the budget {record.get('budget')}, the present "
                f"budget is {trial.share(budget)}; remove its line"
            )
    return finished


class Results:
    """Finished trials in a file with one JSON object per line, and their sums by sequence.

    Args:
        path: File of the trials.
        sums: Folder of the tables of ``differences.SUMS_SCHEMA``.
    """

    def __init__(self, path: Path, sums: Path) -> None:
        self._path, self._sums = path, sums
        self.records: list[dict[str, Any]] = read_records(path) if path.exists() else []

    def has(self, trial: Trial, budget: Budget) -> bool:
        """Whether a trial is finished.

        A neural one must have predicted with ``DRAWS`` samples, IntensityFree must have scored
        ticks, and those of ``SPREADS_TICKS`` must say whether intervals were spread.

        Raises:
            ValueError: The trial was run with another budget, so it cannot be compared.
        """
        finished = finished_records(self.records, trial, budget, path=self._path)
        return any(
            trial.kind != "neural" or "error" in record or _is_current(record)
            for record in finished
        )

    def add(self, records: list[dict[str, Any]]) -> None:
        """Store and print the records of a trial; ``per_sequence`` becomes a table of its own."""
        for record in records:
            table = record.pop("per_sequence", None)
            if table is not None:
                write_sums(table, table_path(self._sums, record))
        self.records += records
        with self._path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        for record in records:
            print(record["set"], record["name"], record["seed"], _short(record), flush=True)


def _short(record: dict[str, Any]) -> dict[str, float]:
    shown = ("joint/nll_nats_per_event", "time/rmse_s", "time/mae_s", "type/accuracy")
    return {key: round(value, 4) for key, value in record["metrics"].items() if key in shown}
