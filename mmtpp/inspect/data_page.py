"""The report as one self-contained HTML page: tables, and figures, one of them of one sequence.

Names, texts and error messages of the data set are escaped. The page loads no other resources.
"""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mmtpp.config.schema import SampleSections
from mmtpp.core.compression import compress
from mmtpp.core.durations import TimeScale, axis_ticks, format_duration, typical_unit
from mmtpp.core.split import SPLITS
from mmtpp.data.settings import compression_of
from mmtpp.evaluate.report.style import (
    BLUE,
    COLORS,
    GREY,
    as_svg,
    build_figure,
    environment,
    log_axis,
    shorten,
)
from mmtpp.inspect.dataset import DataSet
from mmtpp.inspect.measure import QUANTILES, Report

DRAWN_EVENTS = 200
MAX_BARS = 24
MAX_NAME = 60  # characters of a type's name


def as_page(report: Report, data: DataSet, sections: SampleSections) -> str:
    """Render the page.

    Args:
        report: Result of ``measure``.
        data: The measured data set, for the figure of one sequence.
        sections: Sections with the compression in that figure.
    """
    types = sorted(report.types.items(), key=lambda item: -item[1])
    figures = [
        (title, as_svg(figure, title))
        for title, figure in (
            ("Waiting times", _intervals(data)),
            ("Events per sequence", _lengths(data)),
            ("Text tokens per event", _texts(data)),
            ("Events in a context against Delta", _deltas(report)),
        )
    ]
    name, figure_of_sequence = _draw(data, sections)
    times = TimeScale(data.seconds_per_unit, data.times_are_dates)
    return (
        environment()
        .from_string(_PAGE)
        .render(
            r=report,
            times=times,
            splits=SPLITS,
            span=[times.moment(float(end)) for end in _span(data)],
            quantile_rows=[
                ("events per sequence", [f"{value:,.5g}" for value in report.events_per_sequence]),
                ("interval", [times.wait(value) for value in report.interval]),
                ("text tokens per event", [f"{value:,.5g}" for value in report.text_tokens]),
            ],
            quantiles=[f"{order:.0%}" for order in QUANTILES],
            types=[(name, shorten(name, MAX_NAME), count) for name, count in types[:MAX_BARS]],
            figures=figures,
            drawn=name,
            sequence_figure=as_svg(figure_of_sequence, "Intervals of its events in time"),
            compression=sections.compression,
        )
    )


def _span(data: DataSet) -> tuple[float, float]:
    """The first and the last time over all sequences."""
    return min(times[0] for times in data.times), max(times[-1] for times in data.times)


def _intervals(data: DataSet) -> Figure:
    waits = np.concatenate([sequence.intervals[1:] for sequence in data.events])
    positive = waits[waits > 0] * data.seconds_per_unit
    figure, axes = build_figure()
    if len(positive):
        low, high = positive.min(), positive.max()
        axes.hist(positive, bins=np.geomspace(low, max(high, low * 1.01), 60).tolist(), color=BLUE)
        log_axis(axes)
        places = axis_ticks(*axes.get_xlim(), most=6)
        axes.set_xticks(places, [format_duration(place) for place in places])
    zero = 1 - len(positive) / max(1, len(waits))
    axes.set_xlabel(f"interval ({zero:.1%} are zero)")
    axes.set_ylabel("events")
    return figure


def _lengths(data: DataSet) -> Figure:
    figure, axes = build_figure()
    axes.hist([len(sequence) for sequence in data.events], bins=40, color=BLUE)
    axes.set_xlabel("events in a sequence")
    axes.set_ylabel("sequences")
    return figure


def _texts(data: DataSet) -> Figure:
    tokens = np.concatenate([np.diff(sequence.text_offsets) for sequence in data.events])
    figure, axes = build_figure()
    top = max(1, int(np.quantile(tokens, 0.99)))
    bins = np.linspace(-0.5, top + 0.5, min(top + 1, 60) + 1).tolist()
    axes.hist(np.minimum(tokens, top), bins=bins, color=BLUE)
    axes.set_xlabel(f"text tokens of an event (the last bar: {top} and more)")
    axes.set_ylabel("events")
    return figure


def _deltas(report: Report) -> Figure:
    figure, axes = build_figure()
    none, *rows = report.choices
    if none.events_per_context:
        axes.axhline(none.events_per_context, color="#000000", linewidth=1, linestyle=":")
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    for strategy, color in zip(strategies, COLORS, strict=False):
        points = [
            (row.delta, row.events_per_context)
            for row in rows
            if row.strategy == strategy and row.events_per_context
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=strategy, markersize=4)
    if axes.lines:
        log_axis(axes)
        axes.legend(frameon=False)
    axes.set_xlabel("Delta in the source's unit (dotted: no compression)")
    axes.set_ylabel(f"events in {report.max_tokens:,} tokens")
    return figure


def _draw(data: DataSet, sections: SampleSections) -> tuple[str, Figure]:
    """Draw the first events of the sequence of median length, kept and compressed."""
    order = np.argsort([len(sequence) for sequence in data.events], kind="stable")
    chosen = int(order[len(order) // 2])
    times = data.times[chosen][:DRAWN_EVENTS]
    seconds = data.seconds_per_unit
    times = (times - times[0]) * seconds
    unit = typical_unit([float(times[-1])])
    events = data.events[chosen].slice(0, len(times))
    marked = compress(events, replace(compression_of(sections), seed=0))
    waits = events.intervals * seconds
    wait_unit = typical_unit([float(waits.max(initial=0.0))])
    figure, axes = build_figure(width=11.6, height=3.4)
    for is_similar, color, label in ((True, GREY, "compressed"), (False, BLUE, "kept")):
        where = marked.similar == is_similar
        places, heights = times[where] / unit.seconds, waits[where] / wait_unit.seconds
        axes.vlines(places, 0, heights, color=color, linewidth=1.2)
        axes.plot(
            places, heights, "o", color=color, markersize=4, label=f"{label}: {int(where.sum())}"
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"time since the first event ({unit.name})")
    axes.set_ylabel(f"interval ({wait_unit.name})")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return data.names[chosen], figure


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
{{ policy }}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ r.uri }}</title>
<style>
{{ css }}
.bars td, .bars th { vertical-align: middle; } .bars .bar { width: 19em; }
.bars .bar div { background: #2f7fd1; height: .8em; }
.records th, .records td { text-align: left; } .records td.text { overflow-wrap: anywhere;
  min-width: 9em; } .records td.detail { min-width: 18em; }
@media (max-width: 640px) { .bars .bar { display: none; } }
</style></head><body>
<main>
<h1>{{ r.uri }}</h1>
<p>{{ r.kind }}; {{ "{:,}".format(r.num_events) }} events in
{{ "{:,}".format(r.num_sequences) }} sequences, from {{ "{:,}".format(r.num_files) }} of
{{ "{:,}".format(r.num_files_in_source) }} files. Tokens are counted with {{ r.vocabulary }}.</p>
<p>Times are counted in {{ times.unit_in_full }}{% if times.are_dates %} since
1970-01-01 00:00:00 UTC{% endif %}, from {{ span[0] }} to {{ span[1] }}.</p>
{% for hint in r.hints %}
<p class="hint long" tabindex="0">{{ hint }}</p>
{% endfor %}

<h2>Splits</h2>
<table>
<tr><th scope="col">split.by = {{ r.split_by }}</th><th scope="col">sequences</th>
<th scope="col">events</th></tr>
{% for split in splits %}
<tr><th scope="row">{{ split }}</th><td>{{ "{:,}".format(r.sequences_by_split[split]) }}</td>
<td>{{ "{:,}".format(r.events_by_split[split]) }}</td></tr>
{% endfor %}
</table>

<h2>Records</h2>
<table>
<tr><th scope="row">read</th><td>{{ "{:,}".format(r.num_read) }}</td></tr>
{% for cause, count in r.rejected_by_cause.items() %}
<tr><th scope="row">rejected, {{ cause }}</th><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}
{% for kind, count in r.left_out_by_kind.items() %}
<tr><th scope="row">not an event: {{ kind }}</th><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}
{% for kind, count in r.files_not_read.items() %}
<tr><th scope="row">files not read, {{ kind }}</th><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}
<tr><th scope="row">reordered by time</th><td>{{ "{:,}".format(r.num_reordered) }}</td></tr>
<tr><th scope="row">declared interval differs from that of the times</th>
<td>{{ "{:,}".format(r.num_disagreeing) }}</td></tr>
<tr><th scope="row">events with an image</th>
<td>{{ "{:,}".format(r.num_events_with_image) }}</td></tr>
<tr><th scope="row">distinct images within sequences</th>
<td>{{ "{:,}".format(r.num_images) }}</td></tr>
<tr><th scope="row">image files missing</th><td>{{ "{:,}".format(r.num_images_missing) }}</td></tr>
<tr><th scope="row">distinct texts</th><td>{{ "{:,}".format(r.num_distinct_texts) }}</td></tr>
</table>
{% if r.num_texts_truncated %}
<p class="hint">Texts longer than template.max_text_tokens =
{{ r.max_text_tokens }}: {{ "{:,}".format(r.num_texts_truncated) }}. Samples truncate
them.</p>
{% endif %}
{% if r.num_too_long %}
<p class="hint">Events that do not fit window.max_tokens = {{ r.max_tokens }}:
{{ "{:,}".format(r.num_too_long) }}. Samples truncate their texts, and
window.long_events = fail refuses them. Raise window.max_tokens, or set
template.max_text_tokens.</p>
<div class="wide" tabindex="0" role="region" aria-label="Events that do not fit"><table>
<tr><th scope="col">sequence</th><th scope="col">event</th><th scope="col">tokens</th></tr>
{% for event in r.too_long %}
<tr><td class="name">{{ event.sequence }}</td><td>{{ event.event + 1 }}</td>
<td>{{ "{:,}".format(event.tokens) }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% for sentence in r.losses %}
<p class="hint">{{ sentence }}</p>
{% endfor %}
{% if r.rejected_examples %}
<h2>First rejected records</h2>
<div class="wide" tabindex="0" role="region" aria-label="Rejected records">
<table class="records"><tr><th scope="col">file</th><th scope="col">position</th>
<th scope="col">cause</th><th scope="col">detail</th></tr>
{% for record in r.rejected_examples %}
<tr><td class="text">{{ record.path }}</td><td>{{ record.position }}</td><td>{{ record.cause }}</td>
<td class="text detail">{{ record.fault }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

<h2>Quantiles</h2>
<div class="wide" tabindex="0" role="region" aria-label="Quantiles"><table class="pinned"><thead>
<tr><td></td>{% for q in quantiles %}<th scope="col">{{ q }}</th>{% endfor %}</tr></thead><tbody>
{% for name, values in quantile_rows %}
<tr><th scope="row">{{ name }}</th>{% for value in values %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>

<h2>Types</h2>
<div class="wide" tabindex="0" role="region" aria-label="Types"><table class="bars"><thead>
<tr><th scope="col">type</th><th scope="col">events</th><th scope="col">share</th>
<td class="bar"></td></tr></thead><tbody>
{% for name, short, count in types %}
<tr><th scope="row" class="name" title="{{ name }}">{{ short }}</th>
<td>{{ "{:,}".format(count) }}</td>
<td>{{ "{:.1%}".format(count / r.num_events) }}</td>
<td class="bar">
<div style="width: {{ "{:.1f}".format(100 * count / types[0][2]) }}%"></div></td></tr>
{% endfor %}
</tbody></table></div>
{% if r.types|length > types|length %}
<p>and {{ r.types|length - types|length }} more types</p>{% endif %}

<h2>Figures</h2>
<div class="figures">
{% for title, svg in figures %}<figure><figcaption>{{ title }}</figcaption>{{ svg }}</figure>
{% endfor %}
</div>

<h2>Kept and compressed</h2>
<p>The first events of the sequence of median length, {{ drawn }}, under
{{ compression.strategy }} compression with Delta = {{ compression.delta }}.</p>
<div class="wide broad" tabindex="0" role="region" aria-label="A sequence">
{{ sequence_figure }}</div>

{% macro choices(rows) %}
<div class="wide" tabindex="0" role="region" aria-label="Styles and strategies"><table>
<tr>{% for name in ["style", "strategy", "Delta", "compressed", "tokens per event",
  "events in {:,} tokens".format(r.max_tokens), "windows", "samples", "full"] %}
<th scope="col">{{ name }}</th>{% endfor %}</tr>
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
<h2>Template styles, with the compression of the settings</h2>
{{ choices(r.styles) }}
</main></body></html>
"""
