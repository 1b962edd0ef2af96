"""What all parts of the comparison share: the trials, the environments and the figures."""

import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import install, python_of
from benchmarks.peers.trials import Record, Trial, TrialFile
from benchmarks.stack import own_stack
from cluster.services import Stack


@dataclass(slots=True)
class Bench:
    """Runs trials of this project and of its peers.

    Attributes:
        trials: Runs trials and keeps their results.
        environments: Folder of the environments.
        work: Folder of everything that a later run keeps.
        smoke: Whether everything is so small that it only shows that the benchmark runs.
        refused: Environments that could not be installed, with the reason.
    """

    trials: TrialFile
    environments: Path
    work: Path
    smoke: bool
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def repetitions(self) -> int:
        """Number of repetitions of every trial."""
        return 1 if self.smoke else 3

    @contextmanager
    def stack(self) -> Iterator[Stack]:
        """Start the local stack, whose data a later run finds again, and stop it at the end."""
        variables = dict(os.environ)
        try:
            with own_stack(self.work / "stack") as stack:
                yield stack
        finally:
            os.environ.clear()
            os.environ.update(variables)  # trials of other parts start a Ray of their own

    def install(self, names: Iterable[str]) -> None:
        """Install environments; the reason of a failure is kept for the report."""
        for name in names:
            if reason := install(name, self.environments):
                self.refused[name] = reason

    def run(self, trial: Trial, further: Mapping[str, Any] | None = None) -> Record:
        """Run a trial, unless its environment could not be installed."""
        if trial.environment in self.refused:
            return Record(trial, error=self.refused[trial.environment])
        python = python_of(trial.environment, self.environments)
        return self.trials.run(trial, python, further=further)

    def interleave(
        self,
        trials: Mapping[str, Trial],
        run: Callable[[Trial], Record] | None = None,
    ) -> dict[str, list[Record]]:
        """Run all repetitions of trials, so that the trials of a repetition follow each other.

        Args:
            trials: Trials by name; their numbers do not matter.
            run: Runs a trial; None for ``Bench.run``.

        Returns:
            Records of the repetitions, by name.
        """
        records: dict[str, list[Record]] = {name: [] for name in trials}
        for number in range(self.repetitions):
            names = list(trials)
            for name in names if number % 2 == 0 else reversed(names):
                trial = trials[name]
                numbered = Trial(trial.module, trial.arguments, number, trial.environment)
                records[name].append((run or self.run)(numbered))
        return records


def values(records: Sequence[Record], name: str) -> list[float]:
    """A figure of all records that have it."""
    return [float(record.result[name]) for record in records if record.result.get(name) is not None]


def figure(numbers: Sequence[float], digits: int = 0) -> str:
    """Median and range as text; a dash without numbers."""
    if not numbers:
        return "-"
    middle = f"{statistics.median(numbers):,.{digits}f}"
    if len(numbers) == 1:
        return middle
    return f"{middle} [{min(numbers):,.{digits}f}-{max(numbers):,.{digits}f}]"


def errors(records: Mapping[str, Sequence[Record]]) -> list[str]:
    """A line for every name whose trials failed."""
    failed = {
        name: next(record.error for record in of_name if record.error)
        for name, of_name in records.items()
        if any(record.error for record in of_name)
    }
    return [f"- {name} failed: `{error}`" for name, error in failed.items()]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def ratio(
    records: Mapping[str, Sequence[Record]], ours: str, others: Iterable[str], name: str
) -> tuple[str, str] | None:
    """Our figure over that of the best of the others, in the same repetitions.

    Larger figures are better.

    Returns:
        Name of the best of the others, and the ratio as text; None if a figure is missing.
    """
    rates = {other: _by_number(records[other], name) for other in (ours, *others)}
    with_figures = [other for other in rates if other != ours and rates[other]]
    if not with_figures or not rates[ours]:
        return None
    best = max(with_figures, key=lambda other: statistics.median(rates[other].values()))
    shared = sorted(rates[ours].keys() & rates[best].keys())
    return best, figure([rates[ours][number] / rates[best][number] for number in shared], 2)


def _by_number(records: Sequence[Record], name: str) -> dict[int, float]:
    """A figure of the records that have it, by the number of the repetition."""
    return {
        record.trial.number: float(record.result[name])
        for record in records
        if record.result.get(name) is not None
    }
