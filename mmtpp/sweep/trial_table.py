"""Tables of a sweep: its trials as Markdown and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence

from mmtpp.core.training.training_metrics import (
    COMPRESSED_FRACTION,
    EVENTS_PER_CONTEXT,
    TOKENS_PER_EVENT,
    VALIDATION_INTERVAL_NLL,
    VALIDATION_LOSS,
    VALIDATION_TYPE_ACCURACY,
)
from mmtpp.sweep.ranking import SEED, SeedMean, average_over_seeds
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.trial_row import TrialRow

# metrics shown after those of the sweep, if trials report them
COLUMNS = (
    VALIDATION_INTERVAL_NLL,
    VALIDATION_TYPE_ACCURACY,
    VALIDATION_LOSS,
    TOKENS_PER_EVENT,
    EVENTS_PER_CONTEXT,
    COMPRESSED_FRACTION,
)


def trials_table(rows: Sequence[TrialRow], sweep: Sweep) -> str:
    """Format all trials as Markdown, in the given order, then the causes of failures."""
    metrics = _shown_metrics(rows, sweep)
    table = markdown_table(
        [row.as_dict() for row in rows], [*sweep.space, "status", "step", *metrics]
    )
    reasons = [
        f"- {', '.join(f'{key} = {row.settings[key]}' for key in sweep.space)}: {row.error}"
        for row in rows
        if row.error
    ]
    if reasons:
        table += "\n\nFailed:\n\n" + "\n".join(reasons)
    seed_means = average_over_seeds(rows, sweep)
    if seed_means:
        names = [*(key for key in sweep.space if key != SEED), "seeds"]
        for metric in metrics:
            names += [metric, _deviation_column(metric)]
        table += "\n\nMeans over seeds, with standard deviations:\n\n" + markdown_table(
            [_seed_cells(mean) for mean in seed_means], names
        )
    return table + "\n"


def _shown_metrics(rows: Sequence[TrialRow], sweep: Sweep) -> list[str]:
    """Metrics in the table: those of the sweep, then those of ``COLUMNS`` that trials report."""
    columns = [name for name in COLUMNS if any(name in row.metrics for row in rows)]
    return list(dict.fromkeys([*sweep.settings.metric, *columns]))


def _seed_cells(mean: SeedMean) -> dict[str, object]:
    """Cells of a mean over seeds, by column."""
    deviations = {_deviation_column(name): value for name, value in mean.deviations.items()}
    return {**mean.settings, "seeds": mean.num_seeds, **mean.means, **deviations}


def _deviation_column(metric: str) -> str:
    """Name of the column with the standard deviation of a metric."""
    return f"{metric} ±"


def markdown_table(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> str:
    """Format the named cells of rows as a Markdown table."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return (
            f"{value:.4f}"
            if abs(value) < 1e4 and (abs(value) >= 1e-3 or not value)
            else f"{value:.4g}"
        )
    return "" if value is None else str(value)


def as_csv(rows: Sequence[TrialRow]) -> str:
    """Format all trials with all their entries as CSV."""
    lines = [row.as_dict() for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
