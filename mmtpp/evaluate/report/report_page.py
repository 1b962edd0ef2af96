"""``report.html``: the result of an evaluation on one page that loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from mmtpp.core.durations import TimeScale, typical_unit
from mmtpp.evaluate.example_actor import MAX_EVENTS
from mmtpp.evaluate.examples import Example
from mmtpp.evaluate.metrics import Estimate, few_sequences_warning
from mmtpp.evaluate.report.confusion import Confusion, count_confusion
from mmtpp.evaluate.report.example_figures import Target, draw_fan, draw_timeline, example_targets
from mmtpp.evaluate.report.figures import MAX_NAME, TYPES, ReportFigure
from mmtpp.evaluate.report.measures import BASELINES, MEASURES
from mmtpp.evaluate.report.style import as_svg, environment, shorten
from mmtpp.evaluate.report.verdict import Estimates, headline, verdicts

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
    return (
        environment()
        .from_string(_PAGE)
        .render(
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
    )


def _figure_svg(figure: ReportFigure) -> Markup:
    return as_svg(figure.figure, f"{figure.title}: {figure.description}")


def _model_first(estimates: Estimates) -> dict[str, Mapping[str, Estimate]]:
    """The same estimates, with the model before the baselines."""
    return {"model": estimates["model"], **estimates}


def _table(models: Estimates) -> list[dict[str, object]]:
    """Rows of the measures that any forecaster has.

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
        "rows": [_target_row(example, target, names, times) for target in shown],
    }


def _target_row(
    example: Example, target: Target, names: list[str], times: TimeScale
) -> dict[str, object]:
    index = target.index
    waits = list(map(times.wait, target.quantiles)) if target.quantiles else [""] * 5
    return {
        "event": example.start + index,
        "time": times.moment(float(example.times[index])),
        "type": names[int(example.types[index])],
        "predicted": target.predicted or "",
        "interval": times.wait(float(example.intervals[index])),
        "median": waits[2],
        "range": f"{waits[0]} to {waits[4]}" if target.quantiles else "",
        "nll": f"{target.nll:.2f}",
        "text": shorten(example.texts[index], MAX_CELL_TEXT),
    }


def _attention(example: Example) -> dict[str, float] | None:
    """Attention on compressed and on kept events, and the share of compressed events.

    None where all events before the last one are compressed, or all are kept.
    """
    known = np.isfinite(example.attention)
    similar = example.similar[known]
    if not similar.any() or similar.all():
        return None
    weights = example.attention[known]
    return {
        "events": float(similar.mean()),
        "similar": float(weights[similar].sum()),
        "kept": float(weights[~similar].sum()),
        "elsewhere": example.attention_elsewhere,
    }


_PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
{{ policy }}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ subject.name }}</title>
<style>
{{ css }}
svg text { fill: currentColor; font: 13px system-ui, sans-serif; } svg .small { font-size: 12px; }
.band { fill: var(--soft); stroke: var(--line); } .axis { stroke: currentColor; }
.grid { stroke: var(--line); } .card { visibility: hidden; pointer-events: none; }
.event:hover .card, .event:focus .card { visibility: visible; }
.event:focus { outline: none; } .event:focus circle, .event:focus > line { stroke: currentColor;
  stroke-width: 3; }
.timeline:has(.event:hover) .event:focus:not(:hover) .card { visibility: hidden; }
td.best { font-weight: 700; } td .small, th .small { display: block; font-weight: 400; }
td .small { white-space: nowrap; }
.result { border-left: 5px solid var(--link); background: var(--soft); padding: .6em 1.2em;
  border-radius: 0 6px 6px 0; margin: 1em 0; }
.result strong { font-size: 1.1em; } .result p, .result ul { margin: .4em 0; }
.result ul { padding-left: 1.2em; } .result li { max-width: 50em; }
.metrics th:first-child { min-width: 9.5em; max-width: 16em; }
.metrics td { white-space: nowrap; } .metrics thead th { overflow-wrap: anywhere;
  min-width: 5.5em; max-width: 9em; }
dt { font-weight: 600; } dd { margin: 0 0 .7em; }
.shares th, .shares td { padding: .2em .35em; font-size: .875em; }
.shares td { min-width: 2.6em; } .shares .turned { vertical-align: bottom; padding: .4em .2em; }
.shares .turned span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.shares th[scope=row] { white-space: nowrap; } .shares td.same { outline: 1px solid var(--quiet);
  outline-offset: -2px; }
.full { overflow-wrap: anywhere; } .narrow { display: none; }
.targets td { white-space: nowrap; } .targets td.text { white-space: normal; min-width: 11em;
  overflow-wrap: anywhere; }
@media (max-width: 640px) { .result { padding: .5em .8em; } .narrow { display: inline; }
  .metrics, .metrics tbody, .metrics tr { display: block; }
  .metrics thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .metrics tr { border-bottom: 1px solid var(--line); padding: .6em 0; }
  .metrics tbody th[scope=row] { display: block; max-width: none; border: 0; padding: 0; }
  .metrics td { display: grid; grid-template-columns: 1fr 6.2em 8.5em; border: 0; padding: .1em 0;
    align-items: baseline; }
  .metrics td::before { content: attr(data-name); text-align: left; font-weight: 400;
    white-space: normal; overflow-wrap: anywhere; } }
</style></head><body>
<main>
<h1>Evaluation of {{ subject.name }}</h1>
<section class="result" aria-label="Result">
<p><strong>{{ headline }}</strong></p>
{% if verdicts %}
<ul>
{% for verdict in verdicts %}
<li>{{ verdict.measure[0]|upper }}{{ verdict.measure[1:] }}: {{ verdict.claim }}.
{{ verdict.details|join(" ")|replace(" %", "\u00a0%") }}</li>
{% endfor %}
</ul>
<p class="small">A difference counts where its whole 95 % interval is on one side of zero. The
intervals come from paired bootstrap resamples of the held-out sequences.</p>
{% endif %}
</section>
{% if note %}<p class="hint"><strong>Few sequences.</strong> {{ note }}.</p>{% endif %}
<p>{{ "{:,}".format(num_targets) }} events of {{ "{:,}".format(num_sequences) }} held-out sequences
are forecast once, from the events before them. The source counts its times in
{{ times.unit_in_full }}{% if times.are_dates %} since 1970-01-01 00:00:00 UTC, and
the page shows them as dates{% endif %}.
Durations are shown in suitable units; a year is 365.25 days.</p>
<table class="facts">
{% for name, value in subject.facts.items() %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table>

<h2>The model and the baselines</h2>
<div class="wide" tabindex="0" role="region" aria-label="Metrics of the model and the baselines">
<table class="metrics pinned" role="table">
<thead role="rowgroup"><tr role="row"><td role="cell"></td>{% for name in models %}
<th scope="col" role="columnheader">{{ name }}</th>{% endfor %}</tr></thead>
<tbody role="rowgroup">
{% for row in table %}
<tr role="row"><th scope="row" role="rowheader">{{ row.measure.label }}
<span class="small">{{ row.measure.hint }}</span></th>
{% for value, interval, best in row.cells %}
<td role="cell" data-name="{{ models[loop.index0] }}"{% if best %} class="best"{% endif %}>
{{ value or "-" }}{% if interval %}<span class="small">
{{ interval }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="small">The best value of each row is bold. Below each value is its 95 % bootstrap interval
over sequences. A dash means that the model or baseline does not have the measure.</p>
<details><summary>About the measures and the baselines</summary>
<dl>
{% for row in table %}<dt>{{ row.measure.label }}</dt><dd>{{ row.measure.about }}</dd>
{% endfor %}
{% for name, about in baselines.items() %}<dt>Baseline {{ name }}</dt>
<dd>Forecasts {{ about }}.</dd>
{% endfor %}
</dl></details>

<h2>Figures</h2>
<div class="figures">
{% for figure, is_broad, svg in figures %}
<figure><figcaption>{{ figure.title }}</figcaption>
{% if is_broad %}
<div class="wide broad" tabindex="0" role="region" aria-label="{{ figure.title }}">{{ svg }}</div>
{% else %}{{ svg }}{% endif %}
<div class="small">{{ figure.description }}{% if is_broad %}
<span class="narrow">Scroll sideways to see all of it.</span>{% endif %}</div>
</figure>{% endfor %}
</div>

{% if types %}
<h2>Types</h2>
<p>The share of each true type (rows) that is forecast as each type (columns), in percent. Cells
where the forecast is right have an outline. {{ types.note }}</p>
<div class="wide" tabindex="0" role="region" aria-label="True types and forecast types">
<table class="shares pinned">
<thead><tr><th scope="col">true type</th><th scope="col">events</th>
{% for full, short in types.names %}
<th scope="col" class="turned" title="{{ full }}"><span>{{ short }}</span></th>
{% endfor %}</tr></thead><tbody>
{% for row in types.rows %}
<tr><th scope="row" title="{{ row.name[0] }}">{{ row.name[1] }}</th>
<td>{{ "{:,}".format(row.events) }}</td>
{% for share, same, forecast in row.cells %}<td{% if same %} class="same"{% endif %}{% if share %}
 style="background: rgb(47 127 209 / {{ "{:.2f}".format(0.6 * share) }})"
 title="{{ row.name[0] }}, forecast as {{ forecast }}: {{ "{:.1%}".format(share) }}"{% endif %}>
{{ "{:.0f}".format(100 * share) if share >= 0.005 else ("<1" if share else "") }}</td>
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if types.truncated %}
<details><summary>Full names of the types</summary>
<ol>{% for full, short in types.names %}<li class="full">{{ full }}</li>
{% endfor %}</ol></details>
{% endif %}
{% endif %}

<h2>Examples</h2>
{% if examples %}
<p>From a window that was easy to forecast to a hard one, at most {{ max_events }} events of each.
In the first figure, discs are events that the model read in full, and short strokes are compressed
events. In the second figure, the shades contain 50 % and 90 % of the forecast; a disc is a true
interval inside the shades, a cross is a true interval outside. Both figures scroll sideways on a
narrow screen, and the table below them has the same values.</p>
{% else %}
<p>No window has enough targets for an example.</p>
{% endif %}
{% for item in examples %}
<details{% if loop.first %} open{% endif %}>
<summary>{{ item.example.difficulty|capitalize }}: {{ item.example.sequence_id }}, from event
{{ item.example.start }}</summary>
<p class="small">{{ item.first }} to {{ item.last }}</p>
<div class="wide broad" tabindex="0" role="region" aria-label="Events in time">
{{ item.timeline }}
{% if item.fan %}{{ item.fan }}{% endif %}
</div>
{% if item.attention %}
{% set a = item.attention %}
<p>The last question gives {{ "{:.1%}".format(a.similar) }} of its attention to the compressed
events, which are {{ "{:.0%}".format(a.events) }} of the events before it,
{{ "{:.1%}".format(a.kept) }} to the kept events and {{ "{:.1%}".format(a.elsewhere) }} to other
tokens: the question itself, the beginning of the window and older events.</p>{% endif %}
{% if item.example.num_left_out %}<p class="small">{{ item.example.num_left_out }} older images are
left out.</p>{% endif %}
<details><summary>As a table</summary>
<div class="wide" tabindex="0" role="region" aria-label="Targets of the example">
<table class="targets"><thead>
<tr><th scope="col">event</th><th scope="col">time</th><th scope="col" class="text">type</th>
<th scope="col" class="text">forecast type</th><th scope="col">interval</th>
<th scope="col">median forecast</th><th scope="col">90 % interval</th>
<th scope="col">NLL (nats)</th><th scope="col" class="text">text</th></tr></thead><tbody>
{% for row in item.rows %}
<tr><th scope="row">{{ row.event }}</th><td>{{ row.time }}</td><td class="text">{{ row.type }}</td>
<td class="text">{{ row.predicted }}</td><td>{{ row.interval }}</td><td>{{ row.median }}</td>
<td>{{ row.range }}</td><td>{{ row.nll }}</td><td class="text">{{ row.text }}</td></tr>{% endfor %}
</tbody></table></div></details>
</details>
{% endfor %}
</main></body></html>
""")
