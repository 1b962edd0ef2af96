"""The report as one self-contained HTML page: tables, plots, and a sequence drawn.

Everything a data set brings, names, texts and error texts, is escaped; the page loads nothing.
"""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mmtpp.config.schema import RunConfig
from mmtpp.core.compression import compress
from mmtpp.data.settings import compression_of
from mmtpp.inspect.dataset import DataSet
from mmtpp.inspect.measure import QUANTILES, Report
from mmtpp.page.style import BLUE, COLORS, GREY, as_svg, environment, log_axis, plot

DRAWN_EVENTS = 200
MAX_BARS = 24


def as_page(report: Report, data: DataSet, config: RunConfig) -> str:
    """The page.

    Args:
        report: of ``measure``.
        data: that it measured, for the drawing.
        config: the compression the drawing shows.
    """
    types = sorted(report.types.items(), key=lambda item: -item[1])
    plots = [
        (title, as_svg(figure, title))
        for title, figure in (
            ("Waiting times", _intervals(data)),
            ("Events per sequence", _lengths(data)),
            ("Text tokens per event", _texts(data)),
            ("Events in a context against Delta", _deltas(report)),
        )
    ]
    name, drawing = _draw(data, config)
    return (
        environment()
        .from_string(_PAGE)
        .render(
            r=report,
            quantiles=[f"{order:.0%}" for order in QUANTILES],
            types=types[:MAX_BARS],
            plots=plots,
            drawn=name,
            drawing=as_svg(drawing, "Intervals of its events in time"),
            compression=config.compression,
        )
    )


def _intervals(data: DataSet) -> Figure:
    waits = np.concatenate([each.intervals[1:] for each in data.events])
    positive = waits[waits > 0]
    figure, axes = plot()
    if len(positive):
        low, high = positive.min(), positive.max()
        axes.hist(positive, bins=np.geomspace(low, max(high, low * 1.01), 60).tolist(), color=BLUE)
        log_axis(axes)
    zero = 1 - len(positive) / max(1, len(waits))
    axes.set_xlabel(f"interval, in units of {data.seconds_per_unit:g} s ({zero:.1%} are zero)")
    axes.set_ylabel("events")
    return figure


def _lengths(data: DataSet) -> Figure:
    figure, axes = plot()
    axes.hist([len(each) for each in data.events], bins=40, color=BLUE)
    axes.set_xlabel("events in a sequence")
    axes.set_ylabel("sequences")
    return figure


def _texts(data: DataSet) -> Figure:
    tokens = np.concatenate([np.diff(each.text_offsets) for each in data.events])
    figure, axes = plot()
    top = max(1, int(np.quantile(tokens, 0.99)))
    bins = np.linspace(-0.5, top + 0.5, min(top + 1, 60) + 1).tolist()
    axes.hist(np.minimum(tokens, top), bins=bins, color=BLUE)
    axes.set_xlabel(f"text tokens of an event (the last bar: {top} and more)")
    axes.set_ylabel("events")
    return figure


def _deltas(report: Report) -> Figure:
    figure, axes = plot()
    none, *rows = report.choices
    if none.events_per_context:
        axes.axhline(none.events_per_context, color="#000000", linewidth=1, linestyle=":")
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    for strategy, color in zip(strategies, COLORS, strict=False):
        points = [(row.delta, row.events_per_context) for row in rows
                  if row.strategy == strategy and row.events_per_context]  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=strategy, markersize=4)
    if axes.lines:
        log_axis(axes)
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
    figure, axes = plot(width=11.6, height=3.4)
    for is_similar, color, label in ((True, GREY, "compressed"), (False, BLUE, "kept")):
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
{{ policy }}
<meta name="viewport" content="width=device-width">
<title>{{ r.uri }}</title>
<style>
{{ css }}
.bars div { background: #2f7fd1; height: .8em; }
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
{% for kind, count in r.left_out_by_kind.items() %}
<tr><th>left out, no event: {{ kind }}</th><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}
{% for kind, count in r.files_not_read.items() %}
<tr><th>files not read, {{ kind }}</th><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}
<tr><th>reordered by time</th><td>{{ "{:,}".format(r.num_reordered) }}</td></tr>
<tr><th>declared interval is not that of the times</th>
<td>{{ "{:,}".format(r.num_disagreeing) }}</td></tr>
<tr><th>events with an image</th><td>{{ "{:,}".format(r.num_events_with_image) }}</td></tr>
<tr><th>distinct images within sequences</th><td>{{ "{:,}".format(r.num_images) }}</td></tr>
<tr><th>image files missing</th><td>{{ "{:,}".format(r.num_images_missing) }}</td></tr>
<tr><th>distinct texts</th><td>{{ "{:,}".format(r.num_distinct_texts) }}</td></tr>
</table>
{% if r.num_texts_truncated %}
<p class="hint">Texts that are longer than template.max_text_tokens =
{{ r.max_text_tokens }}: {{ "{:,}".format(r.num_texts_truncated) }}. Samples hold them
truncated.</p>
{% endif %}
{% if r.num_too_long %}
<p class="hint">Events that do not fit window.max_tokens = {{ r.max_tokens }}:
{{ "{:,}".format(r.num_too_long) }}. Samples hold their texts in part, unless
window.long_events = stop. Raise window.max_tokens, or set template.max_text_tokens.</p>
<div class="wide"><table><tr><th>sequence</th><th>event</th><th>tokens</th></tr>
{% for each in r.too_long %}
<tr><td>{{ each.sequence }}</td><td>{{ each.event }}</td>
<td>{{ "{:,}".format(each.tokens) }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% for sentence in r.losses %}
<p class="hint">{{ sentence }}</p>
{% endfor %}
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
