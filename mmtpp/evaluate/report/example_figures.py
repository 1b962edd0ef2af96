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

from mmtpp.core.events import NO_FRAME
from mmtpp.core.times.durations import TimeScale, axis_ticks, format_duration
from mmtpp.evaluate.example import Example
from mmtpp.pages.page_style import BLUE, GREEN, GREY, ORANGE, load_template, shorten

WIDTH, MARGIN = 1140, 60
REACH = 8.0  # pixels on each side of an event that react to the pointer, at most
MAX_TEXT = 110  # maximum number of letters of a text in the details
MAX_NAME = 40  # maximum number of letters of a type's name in the details
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TargetForecast:
    """The forecast of a target as an example shows it.

    A part that the model does not forecast, times or types, is None.

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


def example_targets(example: Example, targets: pa.Table, names: list[str]) -> list[TargetForecast]:
    """The forecasts of the targets among the events of an example, in order.

    Args:
        example: The example.
        targets: ``targets.TARGET_SCHEMA``.
        names: Names of the types by code.
    """
    of_sequence = targets.filter(pc.field("sequence_id") == example.sequence_id)
    selected: list[TargetForecast] = []
    for row in of_sequence.to_pylist():
        index = row["position"] - example.start
        if not 0 <= index < len(example.times):
            continue
        levels = tuple(row[f"quantile_{level}"] for level in ("05", "25", "50", "75", "95"))
        event_type = row["predicted_type"]
        selected.append(
            TargetForecast(
                index,
                None if None in levels else levels,
                None if event_type is None else names[event_type],
                float(np.nansum([row[name] or 0.0 for name in ("time_nll", "type_nll")])),
            )
        )
    return sorted(selected, key=lambda forecast: forecast.index)


def draw_timeline(
    example: Example, forecasts: list[TargetForecast], names: list[str], times: TimeScale
) -> Markup:
    """Draw the events of an example on a time line.

    Full events are large, compressed events small. Attention is below.

    Args:
        example: The example.
        forecasts: Forecasts of its targets.
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
    forecast_of = {forecast.index: forecast for forecast in forecasts}
    events: list[dict[str, object]] = []
    for index in range(len(example.times)):
        forecast, weight = forecast_of.get(index), float(example.attention[index])
        event_type = shorten(names[int(example.types[index])], MAX_NAME)
        frame = int(example.frame[index])
        events.append(
            {
                "x": round(float(x[index]), 1),
                "from": round(float(x[index] - left[index]), 2),
                "reach": round(float(left[index] + right[index]), 2),
                "similar": bool(example.similar[index]),
                "is_target": forecast is not None,
                "bar": round(60 * weight / most, 1) if np.isfinite(weight) else 0,
                "lines": _details(example, index, event_type, forecast, times),
                "frame": None if frame == NO_FRAME else frame,
            }
        )
    images = [
        "data:image/jpeg;base64," + base64.b64encode(image).decode() for image in example.frames
    ]
    return Markup(
        load_template("mmtpp.evaluate.report", "timeline.svg").render(
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
    example: Example, index: int, event_type: str, forecast: TargetForecast | None, times: TimeScale
) -> list[str]:
    """Lines of text about an event."""
    state = "compressed into one token" if example.similar[index] else "in full"
    weight = float(example.attention[index])
    if np.isfinite(weight):
        state += f"; {weight:.1%} of the last question's attention"
    return [
        f"event {example.start + index}, {event_type}, "
        f"{times.moment(float(example.times[index]))}, "
        f"{times.wait(float(example.intervals[index]))} after the previous event",
        state,
        *([] if forecast is None else [_forecast_text(forecast, times)]),
        shorten(example.texts[index], MAX_TEXT),
    ]


def _forecast_text(forecast: TargetForecast, times: TimeScale) -> str:
    parts = []
    if forecast.quantiles is not None:
        low, _, median, _, high = map(times.wait, forecast.quantiles)
        parts.append(f"forecast after {median} (90 % interval {low} to {high})")
    if forecast.predicted is not None:
        parts.append(f"forecast type {shorten(forecast.predicted, MAX_NAME)}")
    return f"{', '.join(parts)}; NLL {forecast.nll:.2f} nats"


def draw_fan(example: Example, forecasts: list[TargetForecast], times: TimeScale) -> Markup | None:
    """Draw the forecast quantiles and the true value of each target's interval.

    Args:
        example: The example.
        forecasts: Forecasts of its targets.
        times: How times are written.

    Returns:
        The figure; None where no interval was forecast.
    """
    of_times = [forecast for forecast in forecasts if forecast.quantiles]
    if not of_times:
        return None
    indices = np.array([forecast.index for forecast in of_times])
    levels = np.array([forecast.quantiles for forecast in of_times])
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
        load_template("mmtpp.evaluate.report", "fan.svg").render(
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
