"""The report as one self-contained HTML page: tables, plots, and a sequence drawn.

Everything a data set brings, names, texts and error texts, is escaped; the page loads nothing.
"""

import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmtpp.config.schema import RunConfig
from mmtpp.core.compression import compress
from mmtpp.data.settings import compression_of
from mmtpp.inspect.dataset import DataSet
from mmtpp.inspect.measure import QUANTILES, Report

DRAWN_EVENTS = 200
MAX_BARS = 24
_KEPT, _SIMILAR, _GRID = "#1f5fa8", "#c9ced6", "#e6e9ee"
_COLORS = ("#1f5fa8", "#d1662b", "#3a8f4d", "#8a4fa3")


def as_page(report: Report, data: DataSet, config: RunConfig) -> str:
    """The page.

    Args:
        report: of ``measure``.
        data: that it measured, for the drawing.
        config: the compression the drawing shows.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,.4g}"
    types = sorted(report.types.items(), key=lambda item: -item[1])
    with mpl.rc_context({"svg.fonttype": "path"}):  # no fonts are needed to read it
        plots = [
            ("Waiting times", _svg(_intervals(data))),
            ("Events per sequence", _svg(_lengths(data))),
            ("Text tokens per event", _svg(_texts(data))),
            ("Events in a context against Delta", _svg(_deltas(report))),
        ]
        name, drawing = _draw(data, config)
        return environment.from_string(_PAGE).render(
            r=report,
            quantiles=[f"{order:.0%}" for order in QUANTILES],
            types=types[:MAX_BARS],
            plots=plots,
            drawn=name,
            drawing=_svg(drawing),
            compression=config.compression,
        )


def _figure(width: float = 5.6, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    return figure, axes


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _svg(figure: Figure) -> Markup:
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return Markup(text[text.index("<svg") :])  # matplotlib's, with all text as paths


def _intervals(data: DataSet) -> Figure:
    waits = np.concatenate([each.intervals[1:] for each in data.events])
    positive = waits[waits > 0]
    figure, axes = _figure()
    if len(positive):
        low, high = positive.min(), positive.max()
        axes.hist(positive, bins=np.geomspace(low, max(high, low * 1.01), 60).tolist(), color=_KEPT)
        _log_axis(axes)
    zero = 1 - len(positive) / max(1, len(waits))
    axes.set_xlabel(f"interval, in units of {data.seconds_per_unit:g} s ({zero:.1%} are zero)")
    axes.set_ylabel("events")
    return figure


def _lengths(data: DataSet) -> Figure:
    figure, axes = _figure()
    axes.hist([len(each) for each in data.events], bins=40, color=_KEPT)
    axes.set_xlabel("events in a sequence")
    axes.set_ylabel("sequences")
    return figure


def _texts(data: DataSet) -> Figure:
    tokens = np.concatenate([np.diff(each.text_offsets) for each in data.events])
    figure, axes = _figure()
    top = max(1, int(np.quantile(tokens, 0.99)))
    bins = np.linspace(-0.5, top + 0.5, min(top + 1, 60) + 1).tolist()
    axes.hist(np.minimum(tokens, top), bins=bins, color=_KEPT)
    axes.set_xlabel(f"text tokens of an event (the last bar: {top} and more)")
    axes.set_ylabel("events")
    return figure


def _deltas(report: Report) -> Figure:
    figure, axes = _figure()
    none, *rows = report.choices
    if none.events_per_context:
        axes.axhline(none.events_per_context, color="black", linewidth=1, linestyle=":")
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    for strategy, color in zip(strategies, _COLORS, strict=False):
        points = [(row.delta, row.events_per_context) for row in rows
                  if row.strategy == strategy and row.events_per_context]  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=strategy, markersize=4)
    if axes.lines:
        _log_axis(axes)
        axes.legend(frameon=False)
    axes.set_xlabel("Delta (dotted: no compression)")
    axes.set_ylabel(f"events in {report.max_tokens:,} tokens")
    return figure


def _draw(data: DataSet, config: RunConfig) -> tuple[str, Figure]:
    """The sequence of median length: its first events in time, kept and compressed."""
    order = np.argsort([len(each) for each in data.events], kind="stable")
    chosen = int(order[len(order) // 2])
    times = data.times[chosen][:DRAWN_EVENTS]
    times = times - times[0]
    events = data.events[chosen].slice(0, len(times))
    marked = compress(events, replace(compression_of(config), seed=0))
    figure, axes = _figure(width=11.6, height=3.4)
    for is_similar, color, label in ((True, _SIMILAR, "compressed"), (False, _KEPT, "kept")):
        where = marked.similar == is_similar
        heights = events.intervals[where]
        axes.vlines(times[where], 0, heights, color=color, linewidth=1.2)
        axes.plot(times[where], heights, "o", color=color, markersize=4,
                  label=f"{label}: {int(where.sum())}")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"time since the first event, in units of {data.seconds_per_unit:g} s")
    axes.set_ylabel("interval")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return data.names[chosen], figure


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{{ r.uri }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 1180px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.3em; overflow-wrap: anywhere; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #e6e9ee; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; }
.bars div { background: #1f5fa8; height: .8em; }
.wide { overflow-x: auto; } .hint { background: #fff6e0; padding: .5em 1em; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5em; } .plots figure { margin: 0; }
figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; }
</style></head><body>
<h1>{{ r.uri }}</h1>
<p>{{ r.kind }}; {{ "{:,}".format(r.num_events) }} events in
{{ "{:,}".format(r.num_sequences) }} sequences, from {{ "{:,}".format(r.num_files) }} of
{{ "{:,}".format(r.num_files_there) }} files. Tokens are counted with {{ r.vocabulary }}.</p>
{% for hint in r.hints %}
<p class="hint">{{ hint }}</p>
{% endfor %}

<h2>Records</h2>
<table>
<tr><th>read</th><td>{{ "{:,}".format(r.num_read) }}</td></tr>
{% for cause, count in r.rejected_by_cause.items() %}
<tr><th>rejected, {{ cause }}</th><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}
<tr><th>reordered by time</th><td>{{ "{:,}".format(r.num_reordered) }}</td></tr>
<tr><th>declared interval is not that of the times</th>
<td>{{ "{:,}".format(r.num_disagreeing) }}</td></tr>
<tr><th>events with an image</th><td>{{ "{:,}".format(r.num_events_with_image) }}</td></tr>
<tr><th>distinct images within sequences</th><td>{{ "{:,}".format(r.num_images) }}</td></tr>
<tr><th>image files missing</th><td>{{ "{:,}".format(r.num_images_missing) }}</td></tr>
<tr><th>distinct texts</th><td>{{ "{:,}".format(r.num_distinct_texts) }}</td></tr>
</table>
{% if r.rejected_examples %}
<h2>The first rejected records</h2>
<div class="wide"><table><tr><th>file</th><th>record</th><th>cause</th><th>detail</th></tr>
{% for each in r.rejected_examples %}
<tr><td>{{ each.path }}</td><td>{{ each.row }}</td><td>{{ each.cause }}</td>
<td>{{ each.detail }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

<h2>Quantiles</h2>
<div class="wide"><table><tr><th></th>{% for q in quantiles %}<th>{{ q }}</th>{% endfor %}</tr>
{% for name, values in [("events per sequence", r.events_per_sequence),
  ("interval", r.interval), ("text tokens per event", r.text_tokens)] %}
<tr><td>{{ name }}</td>{% for value in values %}<td>{{ value|number }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>

<h2>Types</h2>
<table class="bars">
{% for name, count in types %}
<tr><td>{{ name }}</td><td>{{ "{:,}".format(count) }}</td>
<td>{{ "{:.1%}".format(count / r.num_events) }}</td>
<td><div style="width: {{ "{:.2f}".format(18 * count / types[0][1]) }}em"></div></td></tr>
{% endfor %}
</table>
{% if r.types|length > types|length %}
<p>and {{ r.types|length - types|length }} more types</p>{% endif %}

<h2>Plots</h2>
<div class="plots">
{% for title, svg in plots %}<figure><figcaption>{{ title }}</figcaption>{{ svg }}</figure>
{% endfor %}
</div>

<h2>Kept and compressed</h2>
<p>The first events of the sequence of median length, {{ drawn }}, under
{{ compression.strategy }} compression with Delta = {{ compression.delta }}.</p>
{{ drawing }}

{% macro choices(rows) %}
<div class="wide"><table><tr><th>style</th><th>strategy</th><th>Delta</th><th>compressed</th>
<th>tokens per event</th><th>events in {{ "{:,}".format(r.max_tokens) }} tokens</th><th>windows</th>
<th>samples</th><th>full</th></tr>
{% for c in rows %}
<tr><td>{{ c.style }}</td><td>{{ c.strategy }}</td>
<td>{{ c.delta|number if c.strategy != "none" else "" }}</td>
<td>{{ "{:.1%}".format(c.compressed) }}</td><td>{{ "{:.1f}".format(c.tokens_per_event) }}</td>
<td>{{ "{:.1f}".format(c.events_per_context) if c.events_per_context else "all fit" }}</td>
<td>{{ "{:,}".format(c.num_windows) }}</td><td>{{ "{:,}".format(c.num_samples) }}</td>
<td>{{ "{:.1%}".format(c.full) }}</td></tr>
{% endfor %}
</table></div>
{% endmacro %}
<h2>Compression</h2>
{{ choices(r.choices) }}
<h2>Styles, with the compression that is set</h2>
{{ choices(r.styles) }}
</body></html>
"""
