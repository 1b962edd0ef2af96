"""``report.html``: the result of an evaluation on one page that loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from mmtpp.core.times.durations import TimeScale, typical_unit
from mmtpp.evaluate.example import MAX_EVENTS, Example
from mmtpp.evaluate.report.confusion import Confusion, count_confusion
from mmtpp.evaluate.report.example_figures import (
    TargetForecast,
    draw_fan,
    draw_timeline,
    example_targets,
)
from mmtpp.evaluate.report.figures import MAX_NAME, TYPES, ReportFigure
from mmtpp.evaluate.report.measures import BASELINES, MEASURES
from mmtpp.evaluate.report.verdict import Estimates, headline, verdicts
from mmtpp.evaluate.scores.estimates import Estimate, few_sequences_warning
from mmtpp.pages.page_style import as_svg, load_template, shorten

BROAD_INCHES = 6.0  # wider figures scroll on a narrow screen
MAX_CELL_TEXT = 80  # maximum number of letters of a text in a table


@dataclass(frozen=True, slots=True)
class Subject:
    """The evaluation that a report is about.

    Attributes:
        name: Name of the evaluation.
        facts: Facts such as model, store and split, by their names.
        type_names: Names of the types by code; the number stands for a code without a name.
        seconds_per_unit: Seconds in one unit of the source's times.
        times_are_dates: Whether times count from 1970-01-01T00:00:00 UTC.
    """

    name: str
    facts: Mapping[str, str]
    type_names: tuple[str, ...]
    seconds_per_unit: float
    times_are_dates: bool = False

    def names(self) -> list[str]:
        """Names of all possible codes."""
        return [*self.type_names, *map(str, range(len(self.type_names), 256))]

    @property
    def times(self) -> TimeScale:
        """How times are written."""
        return TimeScale(self.seconds_per_unit, self.times_are_dates)


def render_report(
    subject: Subject,
    targets: pa.Table,
    estimates: Estimates,
    figures: Sequence[ReportFigure],
    examples: Sequence[Example],
    differences: Estimates,
) -> str:
    """Render the page.

    Args:
        subject: The evaluation.
        targets: ``targets.TARGET_SCHEMA``.
        estimates: Metrics of ``model`` and of each baseline, times in seconds.
        figures: Figures of the same targets.
        examples: Windows to show.
        differences: For each baseline, metrics of the model less metrics of the baseline.
    """
    num_sequences = pc.count_distinct(targets["sequence_id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue] # pyarrow defines it at import
    results = verdicts(estimates, differences)
    models = _model_first(estimates)
    return load_template("mmtpp.evaluate.report", "report_page.html").render(
        subject=subject,
        times=subject.times,
        num_targets=len(targets),
        note=few_sequences_warning(num_sequences),
        num_sequences=num_sequences,
        headline=headline(results, num_sequences),
        verdicts=results,
        models=list(models),
        table=_table(models),
        baselines={name: BASELINES[name] for name in estimates if name in BASELINES},
        figures=[
            (figure, figure.figure.get_figwidth() > BROAD_INCHES, _figure_svg(figure))
            for figure in figures
            if figure.name != TYPES
        ],
        types=_types(count_confusion(targets, subject.names())),
        examples=[_example(subject, targets, example) for example in examples],
        max_events=MAX_EVENTS,
    )


def _figure_svg(figure: ReportFigure) -> Markup:
    return as_svg(figure.figure, f"{figure.title}: {figure.description}")


def _model_first(estimates: Estimates) -> dict[str, Mapping[str, Estimate]]:
    """The same estimates, with the model before the baselines."""
    return {"model": estimates["model"], **estimates}


def _table(models: Estimates) -> list[dict[str, object]]:
    """Rows of the measures that the model or any baseline has.

    A cell holds the value, its interval, and whether the value is the best of the row.
    """
    rows: list[dict[str, object]] = []
    for key, measure in MEASURES.items():
        values = {name: metrics[key].value for name, metrics in models.items() if key in metrics}
        if not values:
            continue
        unit = typical_unit([values["model"]] if "model" in values else values.values())
        best = measure.best_of(values)
        cells: list[tuple[str, str, bool]] = []
        for name, metrics in models.items():
            estimate = metrics.get(key)
            if estimate is None:
                cells.append(("", "", False))
                continue
            interval = measure.interval(estimate, unit)
            cells.append((measure.text(estimate.value, unit), interval, name == best))
        rows.append({"measure": measure, "cells": cells})
    return rows


def _types(confusion: Confusion | None) -> dict[str, object] | None:
    """The table of true and forecast types, with full and truncated names."""
    if confusion is None:
        return None
    names = [(name, shorten(name, MAX_NAME)) for name in confusion.names]
    shares = confusion.shares
    rows = [
        {
            "name": name,
            "events": int(confusion.counts[row].sum()),
            "cells": [
                (float(share), column == row, names[column][0])
                for column, share in enumerate(shares[row].tolist())
            ],
        }
        for row, name in enumerate(names)
    ]
    return {
        "names": names,
        "rows": rows,
        "note": confusion.note,
        "truncated": any(full != short for full, short in names),
    }


def _example(subject: Subject, targets: pa.Table, example: Example) -> dict[str, object]:
    names, times = subject.names(), subject.times
    shown = example_targets(example, targets, names)
    return {
        "example": example,
        "timeline": draw_timeline(example, shown, names, times),
        "fan": draw_fan(example, shown, times),
        "attention": _attention(example),
        "first": times.moment(float(example.times[0])),
        "last": times.moment(float(example.times[-1])),
        "rows": [_target_row(example, forecast, names, times) for forecast in shown],
    }


def _target_row(
    example: Example, forecast: TargetForecast, names: list[str], times: TimeScale
) -> dict[str, object]:
    index = forecast.index
    waits = list(map(times.wait, forecast.quantiles)) if forecast.quantiles else [""] * 5
    return {
        "event": example.start + index,
        "time": times.moment(float(example.times[index])),
        "type": names[int(example.types[index])],
        "predicted": forecast.predicted or "",
        "interval": times.wait(float(example.intervals[index])),
        "median": waits[2],
        "range": f"{waits[0]} to {waits[4]}" if forecast.quantiles else "",
        "nll": f"{forecast.nll:.2f}",
        "text": shorten(example.texts[index], MAX_CELL_TEXT),
    }


def _attention(example: Example) -> dict[str, float] | None:
    """Attention on compressed and on full events, and the share of compressed events.

    None where all events before the last one are compressed, or none is.
    """
    known = np.isfinite(example.attention)
    similar = example.similar[known]
    if not similar.any() or similar.all():
        return None
    weights = example.attention[known]
    return {
        "events": float(similar.mean()),
        "similar": float(weights[similar].sum()),
        "full": float(weights[~similar].sum()),
        "elsewhere": example.attention_elsewhere,
    }
