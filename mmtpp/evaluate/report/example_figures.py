"""Draw an example as SVG: its events in time, forecasts and true intervals, and the attention.

There are no scripts: the details of an event appear while the pointer is on the event or the event
has the keyboard's focus.
"""

import base64
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from mmtpp.core.durations import TimeScale, axis_ticks, format_duration
from mmtpp.core.events import NO_FRAME
from mmtpp.evaluate.examples import Example
from mmtpp.evaluate.report.style import BLUE, GREEN, GREY, ORANGE, environment, shorten

WIDTH, MARGIN = 1140, 60
REACH = 8.0  # pixels on each side of an event that react to the pointer, at most
MAX_TEXT = 110  # maximum number of letters of a text in the details
MAX_NAME = 40  # maximum number of letters of a type's name in the details
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target:
    """The forecast of an event; None where the model does not forecast times, or types.

    Attributes:
        index: Index of the event in its example.
        quantiles: Quantiles of 5, 25, 50, 75 and 95 %, in the source's unit.
        predicted: Name of the most likely type.
        nll: Nats of time and type, as far as they are forecast.
    """

    index: int
    quantiles: tuple[float, ...] | None
    predicted: str | None
    nll: float


def example_targets(example: Example, targets: pa.Table, names: list[str]) -> list[Target]:
    """The targets among the events of an example, in order.

    Args:
        example: The example.
        targets: ``targets.TARGET_SCHEMA``.
        names: Names of the types by code.
    """
    of_sequence = targets.filter(pc.field("sequence_id") == example.sequence_id)
    selected: list[Target] = []
    for row in of_sequence.to_pylist():
        index = row["position"] - example.start
        if not 0 <= index < len(example.times):
            continue
        levels = tuple(row[f"quantile_{level}"] for level in ("05", "25", "50", "75", "95"))
        kind = row["predicted_type"]
        selected.append(
            Target(
                index,
                None if None in levels else levels,
                None if kind is None else names[kind],
                float(np.nansum([row[name] or 0.0 for name in ("time_nll", "type_nll")])),
            )
        )
    return sorted(selected, key=lambda target: target.index)


def draw_timeline(
    example: Example, targets: list[Target], names: list[str], times: TimeScale
) -> Markup:
    """Draw the events of an example on a time line.

    Kept events are large, compressed events small. Attention is below.

    Args:
        example: The example.
        targets: Forecasts of its events.
        names: Names of the types by code.
        times: How times are written.
    """
    span = max(float(example.times[-1] - example.times[0]), 1e-12)
    x = MARGIN + (example.times - example.times[0]) / span * (WIDTH - 2 * MARGIN)
    # an event reacts to the pointer up to half-way to each neighbour; of simultaneous events the
    # last one reacts
    half = np.minimum(np.diff(x) / 2, REACH)
    left, right = np.append(REACH, half), np.append(half, REACH)
    most = float(np.nanmax(example.attention, initial=0.0)) or 1.0
    target_of = {target.index: target for target in targets}
    events: list[dict[str, object]] = []
    for index in range(len(example.times)):
        target, weight = target_of.get(index), float(example.attention[index])
        kind = shorten(names[int(example.types[index])], MAX_NAME)
        frame = int(example.frame[index])
        events.append(
            {
                "x": round(float(x[index]), 1),
                "from": round(float(x[index] - left[index]), 2),
                "reach": round(float(left[index] + right[index]), 2),
                "similar": bool(example.similar[index]),
                "is_target": target is not None,
                "bar": round(60 * weight / most, 1) if np.isfinite(weight) else 0,
                "lines": _details(example, index, kind, target, times),
                "frame": None if frame == NO_FRAME else frame,
            }
        )
    images = [
        "data:image/jpeg;base64," + base64.b64encode(image).decode() for image in example.frames
    ]
    return Markup(
        environment()
        .from_string(_TIMELINE)
        .render(
            events=events,
            images=images,
            name=example.difficulty.replace(" ", "-"),
            width=WIDTH,
            margin=MARGIN,
            first=times.moment(float(example.times[0])),
            last=times.moment(float(example.times[-1])),
            blue=BLUE,
            grey=GREY,
            orange=ORANGE,
        )
    )


def _details(
    example: Example, index: int, kind: str, target: Target | None, times: TimeScale
) -> list[str]:
    """Lines of text about an event."""
    state = "compressed into a similar event" if example.similar[index] else "kept"
    weight = float(example.attention[index])
    if np.isfinite(weight):
        state += f"; {weight:.1%} of the last question's attention"
    return [
        f"event {example.start + index}, {kind}, {times.moment(float(example.times[index]))}, "
        f"{times.wait(float(example.intervals[index]))} after the previous event",
        state,
        *([] if target is None else [_forecast_text(target, times)]),
        shorten(example.texts[index], MAX_TEXT),
    ]


def _forecast_text(target: Target, times: TimeScale) -> str:
    parts = []
    if target.quantiles is not None:
        low, _, median, _, high = map(times.wait, target.quantiles)
        parts.append(f"forecast after {median} (90 % interval {low} to {high})")
    if target.predicted is not None:
        parts.append(f"forecast type {shorten(target.predicted, MAX_NAME)}")
    return f"{', '.join(parts)}; NLL {target.nll:.2f} nats"


def draw_fan(example: Example, targets: list[Target], times: TimeScale) -> Markup | None:
    """Draw the forecast quantiles and the true value of each target's interval.

    Args:
        example: The example.
        targets: Forecasts of its events.
        times: How times are written.

    Returns:
        The figure; None where no interval was forecast.
    """
    forecasts = [(target.index, target.quantiles) for target in targets if target.quantiles]
    if not forecasts:
        return None
    indices = np.array([index for index, _ in forecasts])
    levels = np.array([quantiles for _, quantiles in forecasts])
    truth = example.intervals[indices]
    positive = np.concatenate([levels[levels > 0], truth[truth > 0]])
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 10.0)
    bottom, top, height = np.log10(low) - 0.1, np.log10(high) + 0.1, 220

    def y(values: FloatArray) -> FloatArray:
        logs = np.log10(np.maximum(values, low))
        return 10 + height * (1 - (logs - bottom) / (top - bottom))

    x = MARGIN + (indices + 0.5) / len(example.times) * (WIDTH - 2 * MARGIN)
    half = min(6.0, 0.4 * (WIDTH - 2 * MARGIN) / len(example.times))
    bars = [
        {
            "x": round(float(at), 1),
            "y": [round(float(value), 1) for value in y(row)],
            "true": round(float(y(true[None])[0]), 1),
            "inside": bool(row[0] <= true <= row[4]),
        }
        for at, row, true in zip(x, levels, truth, strict=True)
    ]
    seconds = times.seconds_per_unit
    labels = [
        (format_duration(tick), round(float(y(np.array([tick / seconds]))[0]), 1))
        for tick in axis_ticks(float(10**bottom) * seconds, float(10**top) * seconds)
    ]
    inside = np.mean([bar["inside"] for bar in bars])
    return Markup(
        environment()
        .from_string(_FAN)
        .render(
            bars=bars,
            ticks=labels,
            half=round(half, 1),
            width=WIDTH,
            margin=MARGIN,
            height=height + 40,
            inside=f"{inside:.0%}",
            blue=BLUE,
            green=GREEN,
            orange=ORANGE,
        )
    )


_TIMELINE = """\
<svg class="timeline" width="{{ width }}" height="330" viewBox="0 0 {{ width }} 330" role="group"
 aria-label="Events in time; each can be focused">
{% for image in images %}
<defs><image id="{{ name }}-{{ loop.index0 }}" href="{{ image }}" width="84" height="84"/></defs>
{% endfor %}
<rect x="{{ margin }}" y="4" width="{{ width - 2 * margin }}" height="100" rx="6" class="band"/>
<text x="{{ margin + 12 }}" y="58" class="hintline">Point at an event, or step through them with
 the Tab key.</text>
<line x1="{{ margin }}" x2="{{ width - margin }}" y1="180" y2="180" class="axis"/>
<text x="{{ margin }}" y="318">{{ first }}</text>
<text x="{{ width - margin }}" y="318" text-anchor="end">{{ last }}</text>
<text x="{{ margin }}" y="300" class="small">attention of the last question, below the line</text>
{% for e in events %}
<g class="event" tabindex="0" role="img" aria-label="{{ e.lines | join('; ') }}">
{% if e.bar %}<line x1="{{ e.x }}" x2="{{ e.x }}" y1="205" y2="{{ 205 + e.bar }}"
 stroke="{{ orange }}" stroke-width="3"/>{% endif %}
{% if e.similar %}<line x1="{{ e.x }}" x2="{{ e.x }}" y1="172" y2="188" stroke="{{ grey }}"
 stroke-width="2"/>{% else %}<circle cx="{{ e.x }}" cy="180" r="6" fill="{{ blue }}"/>{% endif %}
<rect x="{{ e.from }}" y="120" width="{{ e.reach }}" height="150" class="hit" fill="transparent"/>
<g class="card"><rect x="{{ margin }}" y="4" width="{{ width - 2 * margin }}" height="100" rx="6"
 class="band"/><line x1="{{ e.x }}" x2="{{ e.x }}" y1="104" y2="170" class="axis"/>
{% if e.frame is not none %}<use href="#{{ name }}-{{ e.frame }}" x="{{ margin + 8 }}" y="12"/>
{% endif %}
{% for line in e.lines %}<text x="{{ margin + 104 }}" y="{{ 28 + 20 * loop.index0 }}">{{ line }}
</text>{% endfor %}</g></g>
{% endfor %}</svg>
"""

_FAN = """\
<svg width="{{ width }}" height="{{ height }}" viewBox="0 0 {{ width }} {{ height }}" role="img"
 aria-label="Forecast quantiles of each interval and the true one; {{ inside }}
 of them lie between the 5 and 95 % quantiles">
{% for label, y in ticks %}
<line x1="{{ margin }}" x2="{{ width - margin }}" y1="{{ y }}" y2="{{ y }}" class="grid"/>
<text x="{{ margin - 6 }}" y="{{ y + 4 }}" text-anchor="end" class="small">{{ label }}</text>
{% endfor %}
{% for bar in bars %}
<rect x="{{ bar.x - half }}" width="{{ 2 * half }}" y="{{ bar.y[4] }}"
 height="{{ (bar.y[0] - bar.y[4]) | round(1) }}" fill="{{ blue }}" opacity=".25"/>
<rect x="{{ bar.x - half }}" width="{{ 2 * half }}" y="{{ bar.y[3] }}"
 height="{{ (bar.y[1] - bar.y[3]) | round(1) }}" fill="{{ blue }}" opacity=".45"/>
<line x1="{{ bar.x - half }}" x2="{{ bar.x + half }}" y1="{{ bar.y[2] }}" y2="{{ bar.y[2] }}"
 stroke="{{ blue }}" stroke-width="2"/>
{% if bar.inside %}<circle cx="{{ bar.x }}" cy="{{ bar.true }}" r="3" fill="{{ green }}"/>
{% else %}<path d="M{{ bar.x - 4 }} {{ bar.true - 4 }}l8 8m0 -8l-8 8" stroke="{{ orange }}"
 stroke-width="2"/>{% endif %}
{% endfor %}
<text x="{{ width / 2 }}" y="{{ height - 6 }}" text-anchor="middle">one bar per event; intervals on
 a logarithmic scale</text></svg>
"""
