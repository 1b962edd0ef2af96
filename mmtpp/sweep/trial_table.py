"""Report of a sweep: its trials as a table, and the best configuration as TOML."""

import csv
import io
from collections.abc import Mapping, Sequence

import tomli_w

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.sweep.ranking import SEED, SeedMean, average_over_seeds
from mmtpp.sweep.space import Sweep, Values
from mmtpp.sweep.trial_row import TrialRow

# metrics shown after those of the sweep, if trials report them
COLUMNS = (
    "validation/interval_nll_nats_per_event",
    "validation/type_accuracy",
    "validation/loss_per_token",
    "data/tokens_per_event",
    "data/events_per_context",
    "data/compressed_fraction",
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
    """Return the cells of a mean over seeds, by column."""
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


def best_files(sweep: Sweep, best: Values) -> dict[str, bytes]:
    """Build the configuration files of the best trial, by name; jobs run them unchanged.

    ``best.toml`` is for the first job, ``best-finetune.toml`` for a ``finetune`` that follows.

    Raises:
        ConfigError: The best settings are not a valid configuration.
    """
    config = with_values(sweep.config, sweep.trial_settings(best))
    first, *later = sweep.settings.jobs
    files = {"best.toml": as_toml(config, f"jobs/{first}.py --config best.toml")}
    if "finetune" in later:
        finetune_config = with_values(config, sweep.settings.finetune)
        trained = "model.adapter" if config.lora.rank else "model.path"
        command = f"jobs/finetune.py --config best-finetune.toml --set {trained}=MODEL_OF_BEST_TOML"
        files["best-finetune.toml"] = as_toml(finetune_config, command)
    return {name: text.encode() for name, text in files.items()}


def as_toml(config: RunConfig, command: str) -> str:
    """Format a configuration file; its first line names the command that uses it.

    Args:
        config: Configuration to write.
        command: Command after ``python``.
    """
    return f"# python {command}\n\n" + tomli_w.dumps(config.model_dump(mode="json"))
