"""``report.html``: what an evaluation found, on one page that loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from mmtpp.evaluate.drawing import draw_fan, draw_timeline, targets_of
from mmtpp.evaluate.examples import MAX_EVENTS, Example
from mmtpp.evaluate.figures import Plot
from mmtpp.evaluate.metrics import Estimate, few_sequences
from mmtpp.page.style import as_svg, environment

COLUMNS = {
    "time/nll_nats_per_event": "NLL of times (nats an event)",
    "time/mae_s": "MAE (s)",
    "time/rmse_s": "RMSE (s)",
    "time/crps_s": "CRPS (s)",
    "time/coverage_90": "90 % intervals cover",
    "type/nll_nats_per_event": "NLL of types (nats an event)",
    "type/accuracy": "type accuracy",
    "type/macro_f1": "macro-F1",
    "text/nll_nats_per_token": "NLL of texts (nats a token)",
    "text/rouge_l": "ROUGE-L",
    "text/chrf": "chrF",
    "horizon/otd_s": "OTD (s)",
    "horizon/t_map": "T-mAP",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What was evaluated.

    Attributes:
        name: of the evaluation.
        facts: others, by what they are: model, store, split.
        type_names: by code; a code without a name is its number.
        seconds_per_unit: of the source's times.
    """

    name: str
    facts: Mapping[str, str]
    type_names: tuple[str, ...]
    seconds_per_unit: float

    def names(self) -> list[str]:
        """Of all possible codes."""
        known = list(self.type_names)
        return known + [str(code) for code in range(len(known), 256)]

    @property
    def unit(self) -> str:
        """A word for the source's unit."""
        known = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d", 1e-3: "ms"}
        return known.get(self.seconds_per_unit, f"units of {self.seconds_per_unit:g} s")


def as_report(
    subject: Subject,
    targets: pa.Table,
    estimates: Mapping[str, Mapping[str, Estimate]],
    plots: Sequence[Plot],
    examples: Sequence[Example],
) -> str:
    """The page.

    Args:
        subject: what was evaluated.
        targets: ``targets.TARGET_SCHEMA``.
        estimates: of the model, ``model``, and of each baseline.
        plots: of the same targets.
        examples: to look at.
    """
    names = subject.names()
    shown: list[dict[str, object]] = []
    for example in examples:
        found = targets_of(example, targets, names)
        table = [
            (example.start + each.place, names[int(example.types[each.place])], each,
             float(example.intervals[each.place]))
            for each in found
        ]  # fmt: skip
        shown.append(
            {
                "example": example,
                "timeline": draw_timeline(example, found, names, subject.unit),
                "fan": draw_fan(example, found, subject.unit),
                "attention": _attention(example),
                "table": table,
            }
        )
    return (
        environment()
        .from_string(_PAGE)
        .render(
            subject=subject,
            num_targets=len(targets),
            note=few_sequences(len(targets["sequence_id"].unique())),
            num_sequences=pc.count_distinct(targets["sequence_id"]).as_py(),  # pyright: ignore[reportAttributeAccessIssue] # pyarrow makes it when it is imported
            table=_table(estimates),
            plots=[
                (each, as_svg(each.figure, f"{each.title}: {each.description}")) for each in plots
            ],
            examples=shown,
            max_events=MAX_EVENTS,
        )
    )


def _table(
    estimates: Mapping[str, Mapping[str, Estimate]],
) -> dict[str, list[tuple[str, str, bool]]]:
    """Cells of each column: value, interval, whether it is the best of the column."""
    rows = {name: found for name, found in estimates.items() if name != "model"}
    rows["model"] = estimates["model"]
    used = [key for key in COLUMNS if any(key in found for found in rows.values())]
    cells: dict[str, list[tuple[str, str, bool]]] = {name: [] for name in rows}
    for key in used:
        values = {
            name: found[key].value
            for name, found in rows.items()
            if key in found and np.isfinite(found[key].value)
        }
        best = _best(key, values)
        for name, found in rows.items():
            each = found.get(key)
            if each is None:
                cells[name].append(("", "", False))
            elif not np.isfinite(each.value):
                cells[name].append(("∞", "", False))
            else:
                interval = f"{each.low:,.4g} to {each.high:,.4g}"
                cells[name].append((f"{each.value:,.4g}", interval, name == best))
    return {"": [(COLUMNS[key], "", False) for key in used], **cells}


def _best(key: str, values: Mapping[str, float]) -> str:
    if not values:
        return ""
    if "coverage" in key:
        return min(values, key=lambda name: abs(values[name] - 0.9))
    is_loss = any(part in key for part in ("nll", "mae", "rmse", "crps", "otd"))
    return (min if is_loss else max)(values, key=values.__getitem__)


def _attention(example: Example) -> dict[str, float] | None:
    """Shares of attention and of events, of kept and of compressed ones before the last."""
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
<meta name="viewport" content="width=device-width">
<title>{{ subject.name }}</title>
<style>
{{ css }}
svg text { fill: currentColor; font: 13px system-ui, sans-serif; } svg .small { font-size: 11px; }
.band { fill: var(--soft); stroke: var(--line); } .axis { stroke: currentColor; }
.grid { stroke: var(--line); } .card { visibility: hidden; pointer-events: none; }
.event:hover .card, .event:focus .card { visibility: visible; }
.event:focus { outline: none; } .event:focus circle, .event:focus > line { stroke: currentColor;
  stroke-width: 3; }
.timeline:has(.event:hover) .event:focus:not(:hover) .card { visibility: hidden; }
td.best { font-weight: 700; } td .small { display: block; white-space: nowrap; }
</style></head><body>
<main>
<h1>{{ subject.name }}</h1>
<p>{{ "{:,}".format(num_targets) }} events of {{ "{:,}".format(num_sequences) }} held-out sequences,
each forecast once from the events before it. Times are in {{ subject.unit }}; intervals are 95 %,
by drawing sequences.</p>
{% if note %}<p>{{ note }}.</p>{% endif %}
<table>
{% for name, value in subject.facts.items() %}
<tr><th scope="row">{{ name }}</th><td class="text">{{ value }}</td></tr>{% endfor %}
</table>

<h2>Against baselines</h2>
<div class="wide" tabindex="0" role="region" aria-label="Metrics of the model and the baselines">
<table>
{% for name, cells in table.items() %}
{% if loop.first %}<tr><td></td>{% for cell in cells %}<th scope="col">{{ cell[0] }}</th>
{% endfor %}</tr>{% else %}<tr><th scope="row">{{ name }}</th>
{% for value, interval, best in cells %}
<td{% if best %} class="best"{% endif %}>{{ value }}{% if interval %}<span class="small">
{{ interval }}</span>{% endif %}</td>{% endfor %}</tr>{% endif %}
{% endfor %}
</table></div>
<p class="small">The best of each column in bold; of coverage, the nearest to 90 %.</p>

<h2>Plots</h2>
<div class="plots">
{% for plot, svg in plots %}
<figure><figcaption>{{ plot.title }}</figcaption>{{ svg }}
<div class="small">{{ plot.description }}</div>
</figure>{% endfor %}
</div>

<h2>Examples</h2>
{% if examples %}
<p>From windows that were easy to forecast to hard ones, at most {{ max_events }} events of each.
Discs are events that the model read in full, short strokes those that it read compressed. Shaded:
where the forecast expects half and nine tenths of the intervals; a disc is a true interval within,
a cross one outside.</p>
{% else %}
<p>No window has enough targets to be worth a look.</p>
{% endif %}
{% for each in examples %}
<details{% if loop.first %} open{% endif %}>
<summary>{{ each.example.rank }}: {{ each.example.sequence_id }}, from event
{{ each.example.start }}</summary>
{{ each.timeline }}
{% if each.fan %}{{ each.fan }}{% endif %}
{% if each.attention %}
{% set a = each.attention %}
<p>The last question gives {{ "{:.1%}".format(a.similar) }} of its attention to the compressed
events, which are {{ "{:.0%}".format(a.events) }} of those before it,
{{ "{:.1%}".format(a.kept) }} to the kept ones and {{ "{:.1%}".format(a.elsewhere) }} to itself and
what stands before them.</p>{% endif %}
{% if each.example.num_left_out %}<p class="small">{{ each.example.num_left_out }} older images are
left out.</p>{% endif %}
<details><summary>As a table</summary>
<div class="wide" tabindex="0" role="region" aria-label="Targets of the example"><table>
<tr><th scope="col">event</th><th scope="col">type</th><th scope="col">forecast type</th>
<th scope="col">interval</th><th scope="col">median</th><th scope="col">5 %</th>
<th scope="col">95 %</th><th scope="col">nats</th></tr>
{% for position, kind, target, interval in each.table %}
<tr><td>{{ position }}</td><td>{{ kind }}</td><td>{{ target.predicted or "" }}</td>
<td>{{ interval|number }}</td>{% if target.quantiles %}<td>{{ target.quantiles[2]|number }}</td>
<td>{{ target.quantiles[0]|number }}</td><td>{{ target.quantiles[4]|number }}</td>{% else %}
<td></td><td></td><td></td>{% endif %}<td>{{ "{:.2f}".format(target.nll) }}</td></tr>{% endfor %}
</table></div></details>
</details>
{% endfor %}
</main></body></html>
""")
