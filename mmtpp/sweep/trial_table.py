"""What a sweep leaves behind: its trials as a table, and the best configuration as TOML."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

import tomli_w

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.sweep.space import Sweep, Values

Row = dict[str, object]
SEED = "training.seed"
# shown beside what the sweep is judged by, where trials have them
COLUMNS = (
    "validation/interval_nll_nats_per_event",
    "validation/type_accuracy",
    "validation/loss_per_token",
    "data/tokens_per_event",
    "data/events_per_context",
    "data/compressed_fraction",
)


def ranked(rows: Sequence[Row], metric: str, mode: str) -> list[Row]:
    """Trials from best to worst; failed and stopped ones, and those without the metric, last.

    A trial that was stopped early was judged before the others, so it is never the best.
    """
    sign = 1.0 if mode == "min" else -1.0
    order = {"finished": 0, "stopped": 1, "cut short": 1}

    def key(row: Row) -> tuple[int, bool, float]:
        value = row.get(metric)
        known = isinstance(value, float)
        return (order.get(str(row["status"]), 2), not known, sign * value if known else 0.0)

    return sorted(rows, key=key)


def pareto(rows: Sequence[Row], metrics: Sequence[str], modes: Sequence[str]) -> list[Row]:
    """Finished trials that no other one beats or equals in every metric and beats in one."""
    signs = [1.0 if mode == "min" else -1.0 for mode in modes]
    done = [row for row in rows if row["status"] == "finished"]
    points = [
        (row, [sign * float(str(row[name])) for sign, name in zip(signs, metrics, strict=True)])
        for row in done
        if all(isinstance(row.get(name), float) for name in metrics)
    ]
    return [
        row
        for row, point in points
        if not any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for _, other in points
        )
    ]


def over_seeds(rows: Sequence[Row], sweep: Sweep) -> list[Row]:
    """Trials that differ in ``training.seed`` alone as one, with mean and standard deviation.

    Returns:
        A row for each combination of the other settings: ``seeds``, and of each metric shown its
        mean and, as ``metric ±``, its standard deviation; empty when seeds are not searched.
    """
    if SEED not in sweep.space:
        return []
    keys = [key for key in sweep.space if key != SEED]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "finished":
            groups.setdefault(str([row[key] for key in keys]), []).append(row)
    found: list[Row] = []
    for group in groups.values():
        row: Row = {**{key: group[0][key] for key in keys}, "seeds": len(group)}
        for name in shown_metrics(rows, sweep):
            numbers: list[Any] = [each[name] for each in group if isinstance(each.get(name), float)]
            if len(numbers) == len(group):
                row[name] = statistics.mean(numbers)
                if len(numbers) > 1:
                    row[f"{name} ±"] = statistics.stdev(numbers)
        found.append(row)
    return found


def shown_metrics(rows: Sequence[Row], sweep: Sweep) -> list[str]:
    """Columns of the table: what the sweep is judged by, and what else trials have of COLUMNS."""
    there = {key for row in rows for key in row}
    return list(
        dict.fromkeys([*sweep.settings.metric, *(each for each in COLUMNS if each in there)])
    )


def markdown(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def trials_table(rows: Sequence[Row], sweep: Sweep) -> str:
    """All trials as Markdown, in the order given, then why some failed."""
    table = markdown(rows, [*sweep.space, "status", "step", *shown_metrics(rows, sweep)])
    failed = [row for row in rows if row["error"]]
    reasons = [
        f"- {', '.join(f'{key} = {row[key]}' for key in sweep.space)}: {row['error']}"
        for row in failed
    ]
    if reasons:
        table += "\n\nFailed:\n\n" + "\n".join(reasons)
    seeds = over_seeds(rows, sweep)
    if seeds:
        names = [*(key for key in sweep.space if key != SEED), "seeds"]
        for name in shown_metrics(rows, sweep):
            names += [name, f"{name} ±"]
        table += "\n\nOver seeds, with standard deviations:\n\n" + markdown(seeds, names)
    return table + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """All trials with everything that is known of them."""
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


def comparable(rows: Sequence[Row], sweep: Sweep) -> list[Row]:
    """Finished trials; where seeds are searched, the means of settings that most seeds finished
    with, for the best single seed is luck."""
    means = over_seeds(rows, sweep)
    most = max((int(str(row["seeds"])) for row in means), default=0)
    whole = [{**row, "status": "finished"} for row in means if row["seeds"] == most]
    return whole if SEED in sweep.space else [row for row in rows if row["status"] == "finished"]


def best_of(rows: Sequence[Row], sweep: Sweep) -> Row | None:
    """The best of ``comparable`` by the sweep's first metric, None where none has it; with all
    settings, the seed of the best trial of those included."""
    metric, mode = sweep.settings.metric[0], sweep.settings.mode[0]

    def best(among: Sequence[Row]) -> Row | None:
        judged = [row for row in among if isinstance(row.get(metric), float)]
        return next(iter(ranked(judged, metric, mode)), None)

    chosen = best(comparable(rows, sweep))
    if chosen is None or SEED not in sweep.space:
        return chosen
    keys = [key for key in sweep.space if key != SEED]
    done = [row for row in rows if row["status"] == "finished"]
    lucky = best([row for row in done if all(row[key] == chosen[key] for key in keys)])
    assert lucky is not None
    return {**lucky, **chosen}


def best_files(sweep: Sweep, best: Values) -> dict[str, bytes]:
    """Configuration files that the trainings' jobs run as they are: ``best.toml`` of the first, and
    ``best-finetune.toml`` of a second one.

    Raises:
        ConfigError: a file would not be read as what was written.
    """
    config = with_values(sweep.config, sweep.settings_of(best))
    first, *later = sweep.settings.jobs
    files = {"best.toml": as_toml(config, f"jobs/{first}.py --config best.toml")}
    if "finetune" in later:
        own = with_values(config, sweep.settings.finetune)
        trained = "model.adapter" if config.lora.rank else "model.path"
        command = (
            f"jobs/finetune.py --config best-finetune.toml --set {trained}=WHAT_BEST_TOML_MADE"
        )
        files["best-finetune.toml"] = as_toml(own, command)
    return {name: text.encode() for name, text in files.items()}


def as_toml(config: RunConfig, command: str) -> str:
    """A configuration file that a job runs as it is, and by which ``command``, without Python."""
    return f"# python {command}\n\n" + tomli_w.dumps(config.model_dump(mode="json"))
