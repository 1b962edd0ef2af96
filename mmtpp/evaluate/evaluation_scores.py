"""The scores of an evaluation: of its likelihoods, forecasts or answers, and of all together."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """Scores of likelihoods, forecasts or answers, or of all of them.

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


def join_scores(scores: Iterable[EvaluationScores]) -> EvaluationScores:
    """All scores together; their names differ."""
    joined = EvaluationScores()
    for added in scores:
        joined = EvaluationScores(
            joined.metrics | added.metrics,
            joined.baselines | added.baselines,
            joined.tables | added.tables,
            added.report_uri or joined.report_uri,
        )
    return joined
