"""The result of one part of an evaluation, and how parts become one result."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PartScores:
    """Scores of one part of an evaluation: likelihoods, forecasts or answers.

    Attributes:
        metrics: Metrics of the model by name.
        baselines: Metrics of the baselines by name.
        tables: Entries of the job's result: numbers of rows, where the tables are, and notes.
        report_uri: Path of the page; None where nothing was forecast.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)
    tables: dict[str, object] = field(default_factory=dict)
    report_uri: str | None = None


def join_parts(parts: Iterable[PartScores]) -> PartScores:
    """One result with the scores of all parts, whose names differ."""
    joined = PartScores()
    for part in parts:
        joined = PartScores(
            joined.metrics | part.metrics,
            joined.baselines | part.baselines,
            joined.tables | part.tables,
            part.report_uri or joined.report_uri,
        )
    return joined
