"""Report of a sweep: its trials as a table, and the best configuration as TOML."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

import tomli_w

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.sweep.space import Sweep, Values

# a trial: searched settings and metrics by name, and status, step, error, seconds, trial, run_name
Row = dict[str, object]
SEED = "training.seed"
# metrics shown after those of the sweep, if trials report them
COLUMNS = (
    "validation/interval_code_nll_nats_per_event",
    "validation/type_accuracy",
    "validation/loss_per_token",
    "data/tokens_per_event",
    "data/events_per_context",
    "data/compressed_fraction",
)


def rank_trials(rows: Sequence[Row], metric: str, mode: str) -> list[Row]:
    """Sort trials from best to worst.

    Finished trials come first, then stopped ones, then failed ones; trials without the metric come
    last among them. A trial that was stopped early was judged at an earlier step than finished
    trials, so it is never the best.
    """
    sign = 1.0 if mode == "min" else -1.0
    order = {"finished": 0, "stopped": 1, "cut short": 1}

    def key(row: Row) -> tuple[int, bool, float]:
        value = row.get(metric)
        known = isinstance(value, float)
        return (order.get(str(row["status"]), 2), not known, sign * value if known else 0.0)

    return sorted(rows, key=key)


def pareto_front(rows: Sequence[Row], metrics: Sequence[str], modes: Sequence[str]) -> list[Row]:
    """Return the Pareto front: finished trials that no other trial dominates.

    A trial dominates another if it is at least as good in every metric and better in one.
    """
    signs = [1.0 if mode == "min" else -1.0 for mode in modes]
    finished = [row for row in rows if row["status"] == "finished"]
    points = [
        (row, [sign * float(str(row[name])) for sign, name in zip(signs, metrics, strict=True)])
        for row in finished
        if all(isinstance(row.get(name), float) for name in metrics)
    ]
    return [
        row
        for row, point in points
        if not any(
            rival != point and all(a <= b for a, b in zip(rival, point, strict=True))
            for _, rival in points
        )
    ]


def average_over_seeds(rows: Sequence[Row], sweep: Sweep) -> list[Row]:
    """Average trials that differ only in ``training.seed``.

    Returns:
        A row for each combination of the other settings: the number of ``seeds``, the mean of each
        shown metric and, as ``metric ±``, its standard deviation. Empty if seeds are not searched.
    """
    if SEED not in sweep.space:
        return []
    keys = [key for key in sweep.space if key != SEED]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "finished":
            groups.setdefault(str([row[key] for key in keys]), []).append(row)
    averages: list[Row] = []
    for group in groups.values():
        row: Row = {**{key: group[0][key] for key in keys}, "seeds": len(group)}
        for name in shown_metrics(rows, sweep):
            numbers: list[Any] = [
                trial[name] for trial in group if isinstance(trial.get(name), float)
            ]
            if len(numbers) == len(group):
                row[name] = statistics.mean(numbers)
                if len(numbers) > 1:
                    row[f"{name} ±"] = statistics.stdev(numbers)
        averages.append(row)
    return averages


def shown_metrics(rows: Sequence[Row], sweep: Sweep) -> list[str]:
    """Metrics in the table: those of the sweep, then those of ``COLUMNS`` that trials report."""
    reported = {key for row in rows for key in row}
    columns = [name for name in COLUMNS if name in reported]
    return list(dict.fromkeys([*sweep.settings.metric, *columns]))


def markdown_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Format rows as a Markdown table."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def trials_table(rows: Sequence[Row], sweep: Sweep) -> str:
    """Format all trials as Markdown, in the given order, then the causes of failures."""
    table = markdown_table(rows, [*sweep.space, "status", "step", *shown_metrics(rows, sweep)])
    failed = [row for row in rows if row["error"]]
    reasons = [
        f"- {', '.join(f'{key} = {row[key]}' for key in sweep.space)}: {row['error']}"
        for row in failed
    ]
    if reasons:
        table += "\n\nFailed:\n\n" + "\n".join(reasons)
    seeds = average_over_seeds(rows, sweep)
    if seeds:
        names = [*(key for key in sweep.space if key != SEED), "seeds"]
        for name in shown_metrics(rows, sweep):
            names += [name, f"{name} ±"]
        table += "\n\nMeans over seeds, with standard deviations:\n\n" + markdown_table(
            seeds, names
        )
    return table + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Format all trials with all their entries as CSV."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return (
            f"{value:.4f}"
            if abs(value) < 1e4 and (abs(value) >= 1e-3 or not value)
            else f"{value:.4g}"
        )
    return "" if value is None else str(value)


def comparable_rows(rows: Sequence[Row], sweep: Sweep) -> list[Row]:
    """Return the rows among which the best is chosen.

    These are all finished trials. Where seeds are searched, these are the means over seeds, without
    means over fewer seeds than the largest number: the best single seed is luck.
    """
    means = average_over_seeds(rows, sweep)
    most = max((int(str(row["seeds"])) for row in means), default=0)
    complete = [{**row, "status": "finished"} for row in means if row["seeds"] == most]
    return complete if SEED in sweep.space else [row for row in rows if row["status"] == "finished"]


def best_row(rows: Sequence[Row], sweep: Sweep) -> Row | None:
    """Return the best of the comparable rows by the sweep's first metric; None if no row has it.

    The row has all searched settings. Where seeds are searched, its seed is that of the best trial
    with the other settings.
    """
    metric, mode = sweep.settings.metric[0], sweep.settings.mode[0]

    def first(candidates: Sequence[Row]) -> Row | None:
        judged = [row for row in candidates if isinstance(row.get(metric), float)]
        return next(iter(rank_trials(judged, metric, mode)), None)

    best = first(comparable_rows(rows, sweep))
    if best is None or SEED not in sweep.space:
        return best
    keys = [key for key in sweep.space if key != SEED]
    finished = [row for row in rows if row["status"] == "finished"]
    best_seed = first([row for row in finished if all(row[key] == best[key] for key in keys)])
    assert best_seed is not None
    return {**best_seed, **best}


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
    return f"# python {command}\n\n" + tomli_w.dumps(
        config.model_dump(mode="json", exclude_none=True)
    )
