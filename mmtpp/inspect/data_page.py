"""The report as one self-contained HTML page: tables, and figures, one of them of one sequence.

Names, texts and error messages of the data set are escaped. The page loads no other resources.
"""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mmtpp.config.schema import SampleSections
from mmtpp.core.representation.compression import compress
from mmtpp.core.split import SPLITS
from mmtpp.core.times.durations import TimeScale, axis_ticks, format_duration, typical_unit
from mmtpp.data.from_config import build_compression
from mmtpp.inspect.dataset import DataSet
from mmtpp.inspect.measure import QUANTILES, Report
from mmtpp.pages.page_style import (
    BLUE,
    COLORS,
    GREY,
    as_svg,
    build_figure,
    load_template,
    log_axis,
    shorten,
)

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
    return load_template("mmtpp.inspect", "data_page.html").render(
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
    """Draw the first events of the sequence of median length, in full and compressed."""
    order = np.argsort([len(sequence) for sequence in data.events], kind="stable")
    chosen = int(order[len(order) // 2])
    times = data.times[chosen][:DRAWN_EVENTS]
    seconds = data.seconds_per_unit
    times = (times - times[0]) * seconds
    unit = typical_unit([float(times[-1])])
    events = data.events[chosen].slice(0, len(times))
    marked = compress(events, replace(build_compression(sections), seed=0))
    waits = events.intervals * seconds
    wait_unit = typical_unit([float(waits.max(initial=0.0))])
    figure, axes = build_figure(width=11.6, height=3.4)
    for is_similar, color, label in ((True, GREY, "compressed"), (False, BLUE, "in full")):
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
