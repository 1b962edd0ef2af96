"""The table and the figure of the learning curves, from their records."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.measure import machine
from benchmarks.quality.learning_curve import CurvePoint
from benchmarks.quality.neural import FINE_POINTS

NEAR = 0.02  # nats per event
AXES = {"CPU seconds of training": "seconds", "training events": "num_events"}
Record = dict[str, Any]


def read_curves(path: Path) -> list[Record]:
    """Read the finished curves, one JSON object per line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_report(results: Path) -> None:
    """Write the table and the figure next to the records, with the suffixes ``md`` and ``png``.

    Args:
        results: File with the finished curves.
    """
    records = read_curves(results)
    picture = results.with_suffix(".png")
    sets = list(dict.fromkeys(record["set"] for record in records))
    parts = [_head(), f"![NLL by CPU seconds and by training events]({picture.name})\n"]
    parts += [_table(name, _of(records, "set", name)) for name in sets]
    results.with_suffix(".md").write_text("\n".join(parts))
    _figure(records, sets).savefig(picture, dpi=110)


def _head() -> str:
    return (
        "# Learning curves\n\n"
        "Written by `python -m benchmarks.quality.curves`; "
        f"{machine('torch', used='one used per trial')}. "
        "[README.md](README.md) describes the models and their budgets.\n\n"
        "All numbers are of the *validation* split; no test split is read. NLL is of time and type "
        "together in nats per event, in the unit of [quality.md](quality.md), with "
        f"{FINE_POINTS} points of EasyTPP's integrals. *Until near* is the first validation whose "
        f"NLL is at most {NEAR} nats above the lowest one of the same training; it comes as late "
        "as the training's next validation. CPU seconds are those of training, without validation. "
        "Events are training events, and repeated ones count each time. Epochs are events divided "
        "by the training events that are targets. Numbers are means over seeds, and `±` is their "
        "standard deviation.\n\n"
        "- **Temporal expert**: its networks are trained one after the other. The line is that of "
        "the first network against its own CPU seconds, which include reading the events, and "
        "events. The star and the last validation are of the mean of all networks, against the "
        "CPU seconds and events of all. Epochs are the sum over the networks.\n"
        "- **Plain**: the model answers no question before stage 2, so its line begins there. CPU "
        "seconds and events include stage 1.\n"
        "- **Validations**: where quality.md tests a limited number of sequences, all models are "
        "validated on the first sequences of the validation split, the same number. The expert "
        "stops by them, so it may stop at another step than in quality.md.\n"
        f"- **Figure**: one line per seed. The vertical axis is linear below {NEAR} nats and "
        "logarithmic above.\n"
    )


def _of(records: Sequence[Record], key: str, value: str) -> list[Record]:
    return [record for record in records if record[key] == value]


def finite_points(record: Record) -> list[CurvePoint]:
    """The validations whose NLL is a number, in their order; that of a whole model is the last."""
    return [*_finite(record["points"]), *_finite(_whole(record))]


def _whole(record: Record) -> list[list[Any]]:
    """The validation of a whole model, where the other ones are of a part; otherwise none."""
    return [record["whole"]] if "whole" in record else []


def _finite(points: Sequence[Sequence[Any]]) -> list[CurvePoint]:
    return [CurvePoint(*point) for point in points if point[2] is not None]


def first_near_best(points: Sequence[CurvePoint]) -> CurvePoint:
    """The first point whose NLL is at most ``NEAR`` above the lowest one.

    Args:
        points: Points in the order of their training; at least one.
    """
    limit = min(point.nll for point in points) + NEAR
    return next(point for point in points if point.nll <= limit)


def _table(name: str, records: Sequence[Record]) -> str:
    targets = sorted({record["targets"] for record in records if "targets" in record})
    lines = [
        f"## {name}\n",
        f"{', '.join(f'{count:,}' for count in targets)} events of a validation.\n",
        "| | seeds | best NLL | until near: CPU seconds | events | whole training: CPU seconds "
        "| events | epochs | events/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    models = dict.fromkeys(record["name"] for record in records)
    lines += [_row(model, _of(records, "name", model)) for model in models]
    return "\n".join([*lines, ""])


def _row(model: str, records: Sequence[Record]) -> str:
    trained = [record for record in records if "error" not in record]
    failed = [record["error"] for record in records if "error" in record]
    unscored = sum(point[2] is None for record in trained for point in record["points"])
    notes = [f"failed: {failed[0]}"] if failed else []
    notes += [f"{unscored} validations without a finite NLL"] if unscored else []
    title = f"{model} ({'; '.join(notes)})" if notes else model
    curves = [points for record in trained if (points := finite_points(record))]
    near = [first_near_best(points) for points in curves]
    cells = [
        _cell([min(point.nll for point in points) for points in curves], ".3f"),
        _cell([point.seconds for point in near], ",.1f"),
        _cell([point.num_events for point in near], ",.0f"),
        _cell([record["seconds"] for record in trained], ",.1f"),
        _cell([record["num_events"] for record in trained], ",.0f"),
        _cell([record["epochs"] for record in trained], ",.1f"),
        _cell([record["events_per_s"] for record in trained], ",.0f"),
    ]
    return f"| {title} | {len(records)} | {' | '.join(cells)} |"


def _cell(values: Sequence[float], style: str) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):{style}}" if len(values) > 1 else ""
    return f"{np.mean(values):{style}}{spread}"


def _figure(records: Sequence[Record], sets: Sequence[str]) -> Figure:
    """A row of panels for each set: NLL above the lowest one of the set, by seconds and events."""
    figure = Figure(figsize=(9, 2.8 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), len(AXES), squeeze=False, sharey="row")
    models = list(dict.fromkeys(record["name"] for record in records))
    for row, name in zip(panels, sets, strict=True):
        of_set = [record for record in _of(records, "set", name) if "error" not in record]
        best = min(
            (point.nll for record in of_set for point in finite_points(record)), default=np.nan
        )
        for axes, (title, quantity) in zip(row, AXES.items(), strict=True):
            for record in of_set:
                style = _style(record, models.index(record["name"]))
                _draw(axes, record, quantity, best=best, style=style)
            axes.set(xlabel=title, xscale="log", title=f"{name}, lowest NLL {best:.3f}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_yscale("symlog", linthresh=NEAR)
            axes.set_ylim(bottom=0)
        row[0].set_ylabel("nats above the lowest NLL")
    legend = dict(_legend_entries(panels.flat))
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _style(record: Record, number: int) -> dict[str, Any]:
    """Colour, and a line and a marker that differ without it."""
    is_ours = record["kind"] != "neural"
    return {
        "color": f"C{number}",
        "linestyle": "-" if is_ours else "--",
        "marker": "os^vDP"[number % 6],
        "markersize": 3,
        "linewidth": 1,
        "label": record["name"],
    }


def _draw(axes: Axes, record: Record, quantity: str, *, best: float, style: dict[str, Any]) -> None:
    """Draw the curve of one seed, and a star for a whole model."""
    star = {**style, "linestyle": "", "marker": "*", "markersize": 9}
    star["label"] = f"{record['name']}, mean of the networks"
    for points, how in ((_finite(record["points"]), style), (_finite(_whole(record)), star)):
        if points:
            places = [getattr(point, quantity) for point in points]
            axes.plot(places, [point.nll - best for point in points], **how)


def _legend_entries(panels: Iterable[Axes]) -> Iterator[tuple[str, Any]]:
    """Label and line of all models, also of those that only some sets have."""
    for axes in panels:
        lines, labels = axes.get_legend_handles_labels()
        yield from zip(labels, lines, strict=True)
