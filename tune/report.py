"""What a sweep leaves behind: a table, and the best configuration as TOML."""

import json
from collections.abc import Mapping, Sequence

from mmtpp.config.schema import RunConfig

COLUMNS = (
    "validation/interval_nll_nats_per_event",
    "validation/type_accuracy",
    "validation/loss_per_token",
    "train/loss_per_token",
)


def ranked(rows: Sequence[dict[str, object]], metric: str, mode: str) -> list[dict[str, object]]:
    """Trials from best to worst; failed ones and those without the metric last."""
    sign = 1.0 if mode == "min" else -1.0

    def key(row: dict[str, object]) -> tuple[bool, float]:
        value = row.get(metric)
        usable = not row["error"] and isinstance(value, float)
        return (not usable, sign * value if isinstance(value, float) else 0.0)

    return sorted(rows, key=key)


def table(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> str:
    """Trials as Markdown, best first.

    Args:
        rows: settings, metrics and ``error`` of each trial.
        keys: the searched settings.
    """
    names = [*keys, *COLUMNS]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        if row["error"]:
            cells = [*(str(row[key]) for key in keys), f"failed: {row['error']}"]
            cells += [""] * (len(COLUMNS) - 1)
        else:
            cells = [_cell(row.get(name)) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def as_toml(config: RunConfig) -> str:
    """A configuration file that ``jobs/pretrain.py --config`` runs as it is."""
    lines: list[str] = []

    def section(tree: Mapping[str, object], prefix: str) -> None:
        plain = {key: value for key, value in tree.items() if not isinstance(value, dict)}
        if plain:
            lines.append(f"\n[{prefix}]")
        # JSON's strings, numbers, booleans and arrays of strings are TOML's
        lines.extend(f"{key} = {_literal(value)}" for key, value in plain.items())
        for key, value in tree.items():
            if isinstance(value, dict):
                section(value, f"{prefix}.{key}" if prefix else key)

    section(config.model_dump(mode="json"), "")
    return "\n".join(lines).strip() + "\n"


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
