"""The table and the learning curves of the finished trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.measure import machine
from benchmarks.pretrained.event_sets import TRANSCRIPTS
from benchmarks.pretrained.trial import EXPERT

COLUMNS = {
    "text_token": "text token",
    "text_byte": "text byte",
    "text": "text",
    "time": "interval",
    "type": "type",
    "event": "event",
    "mixed_time": "interval, mixed",
    "mixed_type": "type, mixed",
}
"""Titles of the likelihoods, all in nats."""
SCORES = {"rouge_l": "ROUGE-L", "chrf": "chrF"}
"""Titles of the similarities of written and true texts, from 0 to 1."""
_METRICS = COLUMNS | SCORES
_CURVES = {"text_token": "nats per text token", "event": "nats per event"}


Records = Sequence[dict[str, Any]]


def _groups(records: Records) -> dict[tuple[float, str], list[dict[str, Any]]]:
    """Trials that differ only in their seed, by share of the data and title of the model."""
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for record in records:
        title = record["model"] if record["steps"] else f"{record['model']}: before training"
        groups.setdefault((record["fraction"], title), []).append(record)
    return groups


def _cell(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and half the range of the seeds where there are several."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.ptp(values) / 2:.{digits}f}"


def build_table(records: Records) -> str:
    """A row for each model and share of the training data, for the trials of one set."""
    header = ["data", "model", "seeds", "steps", "CPU s", *_METRICS.values()]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    groups = _groups(records)
    for fraction, title in sorted(groups, key=lambda key: -key[0]):
        trials = groups[fraction, title]
        cells = [
            f"{100 * fraction:g} %",
            title,
            str(len(trials)),
            _steps(trials),
            f"{np.mean([trial['cpu_s'] for trial in trials]):,.0f}",
            *(_metric_cell(trials, name) for name in _METRICS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _steps(trials: Records) -> str:
    """Updates of a language model; an expert ends by its validation loss."""
    if trials[0]["model"] == EXPERT:
        return ""
    return f"{np.mean([trial['steps'] for trial in trials]):,.0f}"


def _metric_cell(trials: Records, name: str) -> str:
    """Empty for a model without this likelihood."""
    values = [trial["metrics"][name] for trial in trials if name in trial["metrics"]]
    return _cell(values) if values else ""


def draw_curves(records: Records, path: Path) -> None:
    """Draw the likelihoods over the share of the training data, one line for each model."""
    figure, axes = plt.subplots(1, len(_CURVES), figsize=(10, 4), layout="constrained")
    trained = [record for record in records if record["steps"] and record["model"] != EXPERT]
    for axis, (name, title) in zip(axes, _CURVES.items(), strict=True):
        for model in dict.fromkeys(record["model"] for record in trained):
            points: dict[float, list[float]] = {}
            for record in trained:
                if record["model"] == model:
                    points.setdefault(record["fraction"], []).append(record["metrics"][name])
            fractions = sorted(points)
            means = [float(np.mean(points[fraction])) for fraction in fractions]
            axis.plot([100 * fraction for fraction in fractions], means, marker="o", label=model)
        axis.set(xscale="log", xlabel="training sequences, %", ylabel=title)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_report(records: Records, folder: Path) -> None:
    """Write ``results.md`` and ``curves.png``, the curves of the transcripts."""
    by_set: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_set.setdefault(record["set"], []).append(record)
    draw_curves(by_set[TRANSCRIPTS], folder / "curves.png")
    tables = "\n\n".join(
        f"## {name}\n\n{_describe(trials)}\n\n{build_table(trials)}"
        for name, trials in by_set.items()
    )
    text = f"""# Results

`python -m benchmarks.pretrained.run`; {machine("torch", "transformers", "peft")}

Likelihoods of held-out events in nats; smaller is better. The type is given the interval; an event
is the sum of its text, interval and type. *Mixed*: the model and the temporal expert, with a gate
that is fitted on validation sequences. ROUGE-L and chrF, from 0 to 1, compare texts that the model
writes for 18 % of the events with the true ones; larger is better. ± is half the range of the
seeds. The README describes the sets and how the models were trained.

{tables}

Likelihoods of the transcripts over the share of the training sequences:

![Nats per text token and per event over the share of the training sequences](curves.png)
"""
    (folder / "results.md").write_text(text, encoding="utf-8")


def _describe(trials: Records) -> str:
    """How many events are scored, and on which processors the trials ran."""
    counts = sorted({trial["targets"] for trial in trials})
    processors = sorted({trial["processor"] for trial in trials})
    return f"{' or '.join(map(str, counts))} held-out events are scored; {', '.join(processors)}."
