"""An example drawn as SVG: its events in time, forecasts and truth, and the attention.

No scripts: the details of an event show while it is pointed at or has the keyboard's focus.
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
from mmtpp.evaluate.report.style import BLUE, GREEN, GREY, ORANGE, cut, environment

WIDTH, MARGIN = 1140, 60
REACH = 8.0  # of an event to each side
MAX_TEXT = 110  # letters of a text in the card
MAX_NAME = 40  # letters of a type's name in the card
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target:
    """A forecast of an event; None where the model was not asked.

    Attributes:
        place: Index of the event in its example.
        quantiles: Quantiles of 5, 25, 50, 75 and 95 %, in the source's unit.
        predicted: Name of the most likely type.
        nll: Nats of time and type, of those that were asked.
    """

    place: int
    quantiles: tuple[float, ...] | None
    predicted: str | None
    nll: float


def targets_of(example: Example, targets: pa.Table, names: list[str]) -> list[Target]:
    """The targets of an example in order.

    Args:
        example: The example.
        targets: ``targets.TARGET_SCHEMA``.
        names: Names of the types by code.
    """
    own = targets.filter(pc.field("sequence_id") == example.sequence_id)
    found: list[Target] = []
    for row in own.to_pylist():
        place = row["position"] - example.start
        if not 0 <= place < len(example.times):
            continue
        levels = tuple(row[f"quantile_{level}"] for level in ("05", "25", "50", "75", "95"))
        kind = row["predicted_type"]
        found.append(
            Target(
                place,
                None if None in levels else levels,
                None if kind is None else names[kind],
                float(np.nansum([row[name] or 0.0 for name in ("time_nll", "type_nll")])),
            )
        )
    return sorted(found, key=lambda each: each.place)


def draw_timeline(
    example: Example, found: list[Target], names: list[str], times: TimeScale
) -> Markup:
    """Events on a line of time, large where kept and small where compressed, attention below."""
    span = max(float(example.times[-1] - example.times[0]), 1e-12)
    x = MARGIN + (example.times - example.times[0]) / span * (WIDTH - 2 * MARGIN)
    # half of the way to each neighbour is an event's own; of simultaneous ones the last is hit
    half = np.minimum(np.diff(x) / 2, REACH)
    left, right = np.append(REACH, half), np.append(half, REACH)
    most = float(np.nanmax(example.attention, initial=0.0)) or 1.0
    of_place = {each.place: each for each in found}
    events: list[dict[str, object]] = []
    for place in range(len(example.times)):
        target, weight = of_place.get(place), float(example.attention[place])
        kind = cut(names[int(example.types[place])], MAX_NAME)
        lines = [
            f"event {example.start + place}, {kind}, {times.moment(float(example.times[place]))}, "
            f"{times.wait(float(example.intervals[place]))} after the event before",
            "compressed into a similar event" if example.similar[place] else "kept",
        ]
        if np.isfinite(weight):
            lines[1] += f"; {weight:.1%} of the last question's attention"
        if target is not None:
            lines.append(_forecast(target, times))
        lines.append(cut(example.texts[place], MAX_TEXT))
        frame = int(example.frame[place])
        events.append(
            {
                "x": round(float(x[place]), 1),
                "from": round(float(x[place] - left[place]), 2),
                "reach": round(float(left[place] + right[place]), 2),
                "similar": bool(example.similar[place]),
                "is_target": target is not None,
                "bar": round(60 * weight / most, 1) if np.isfinite(weight) else 0,
                "lines": lines,
                "frame": None if frame == NO_FRAME else frame,
            }
        )
    images = [
        "data:image/jpeg;base64," + base64.b64encode(each).decode() for each in example.frames
    ]
    return Markup(
        environment()
        .from_string(_TIMELINE)
        .render(
            events=events,
            images=images,
            name=example.rank.replace(" ", "-"),
            width=WIDTH,
            margin=MARGIN,
            first=times.moment(float(example.times[0])),
            last=times.moment(float(example.times[-1])),
            blue=BLUE,
            grey=GREY,
            orange=ORANGE,
        )
    )


def _forecast(target: Target, times: TimeScale) -> str:
    parts = []
    if target.quantiles is not None:
        low, _, median, _, high = map(times.wait, target.quantiles)
        parts.append(f"forecast after {median} (90 % interval {low} to {high})")
    if target.predicted is not None:
        parts.append(f"forecast type {cut(target.predicted, MAX_NAME)}")
    return f"{', '.join(parts)}; NLL {target.nll:.2f} nats"


def draw_fan(example: Example, found: list[Target], times: TimeScale) -> Markup | None:
    """Forecast quantiles of each target's interval and the true one; None without any."""
    asked = [(each.place, each.quantiles) for each in found if each.quantiles is not None]
    if not asked:
        return None
    places = np.array([place for place, _ in asked])
    levels = np.array([quantiles for _, quantiles in asked])
    truth = example.intervals[places]
    positive = np.concatenate([levels[levels > 0], truth[truth > 0]])
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 10.0)
    bottom, top, height = np.log10(low) - 0.1, np.log10(high) + 0.1, 220

    def y(values: FloatArray) -> FloatArray:
        logs = np.log10(np.maximum(values, low))
        return 10 + height * (1 - (logs - bottom) / (top - bottom))

    x = MARGIN + (places + 0.5) / len(example.times) * (WIDTH - 2 * MARGIN)
    half = min(6.0, 0.4 * (WIDTH - 2 * MARGIN) / len(example.times))
    bars = [
        {
            "x": round(float(at), 1),
            "y": [round(float(each), 1) for each in y(row)],
            "true": round(float(y(true[None])[0]), 1),
            "inside": bool(row[0] <= true <= row[4]),
        }
        for at, row, true in zip(x, levels, truth, strict=True)
    ]
    seconds = times.seconds_per_unit
    labels = [
        (format_duration(place), round(float(y(np.array([place / seconds]))[0]), 1))
        for place in axis_ticks(float(10**bottom) * seconds, float(10**top) * seconds)
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
