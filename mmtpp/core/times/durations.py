"""Durations and dates as people read them: "2.6 days" and "2024-01-31 14:03:07 UTC".

Every page, figure and terminal summary writes durations with these functions. A year has 365.25
days.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
YEAR = 365.25 * DAY
DIGITS = 3  # significant digits
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN_BELOW, _PLAIN_ABOVE = 1e9, 1e-4  # numbers in this range have no exponent


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of time.

    Attributes:
        name: Plural of the unit, such as ``days``.
        seconds: Seconds in one unit.
    """

    name: str
    seconds: float

    def number(self, seconds: float) -> str:
        """A duration in this unit, to three digits, without the unit's name."""
        return format_number(seconds / self.seconds)

    def text(self, seconds: float) -> str:
        """A duration in this unit, to three digits: ``2.6 days``."""
        written = self.number(seconds)
        name = self.name[:-1] if written == "1" and self.name in ("days", "years") else self.name
        return f"{written} {name}" if math.isfinite(seconds) else written


NANOSECONDS, SECONDS = Unit("ns", 1e-9), Unit("s", 1.0)
UNITS = (
    NANOSECONDS,
    Unit("µs", 1e-6),
    Unit("ms", 1e-3),
    SECONDS,
    Unit("min", MINUTE),
    Unit("h", HOUR),
    Unit("days", DAY),
    Unit("years", YEAR),
)
_IN_FULL = {
    "ns": "nanoseconds",
    "µs": "microseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "min": "minutes",
    "h": "hours",
}
# labels of axes, at least two per decade
_STEPS = (
    *(digit * 10.0**power for power in range(-9, 0) for digit in (1, 2, 5)),
    *(1.0, 2.0, 5.0, 10.0, 30.0),
    *(minutes * MINUTE for minutes in (1, 2, 5, 10, 30)),
    *(hours * HOUR for hours in (1, 2, 6, 12)),
    *(days * DAY for days in (1, 2, 7, 30, 100)),
    *(digit * 10.0**power * YEAR for power in range(7) for digit in (1, 2, 5)),
)
_ROUND_STEPS = (
    *(10.0**power for power in range(-9, 2)),
    MINUTE,
    10 * MINUTE,
    HOUR,
    12 * HOUR,
    DAY,
    7 * DAY,
    30 * DAY,
    *(10.0**power * YEAR for power in range(7)),
)


def format_number(value: float) -> str:
    """A number to three digits, written in full unless it is huge or tiny: ``222,700``, ``0.031``.

    Infinity is ``∞``. NaN is an empty text.
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"  # noqa: RUF001 # the sign of a negative number
    rounded = float(f"{value:.{DIGITS}g}")
    if rounded != 0 and not _PLAIN_ABOVE <= abs(rounded) < _PLAIN_BELOW:
        return f"{rounded:.{DIGITS}g}"
    # a large number keeps all its integer digits
    if abs(value) >= 10**DIGITS:
        return f"{value:,.0f}"
    decimals = max(0, DIGITS - 1 - math.floor(math.log10(abs(rounded)))) if rounded else 0
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def suitable_unit(seconds: float) -> Unit:
    """The largest unit in which a duration is at least 1; seconds for 0, infinity and NaN.

    Args:
        seconds: The duration, of either sign.
    """
    size = abs(seconds)
    if not math.isfinite(size) or size == 0:
        return SECONDS
    # compare the rounded duration: 59.99 s are written as 1 min, and 3596 s as 59.9 min
    return next(
        (unit for unit in reversed(UNITS) if float(f"{size / unit.seconds:.{DIGITS}g}") >= 1),
        NANOSECONDS,
    )


def format_duration(seconds: float) -> str:
    """A duration in a suitable unit, to three digits: ``2.58 days``."""
    return "" if math.isnan(seconds) else suitable_unit(seconds).text(seconds)


def format_running_time(seconds: float) -> str:
    """A running time in whole seconds: ``12 s``, ``3 min 12 s``, ``2 h 1 min``."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (hours + minutes > 0)
    return " ".join([*parts, f"{whole_seconds} s"] if not hours else parts)


def unit_name(seconds_per_unit: float) -> str:
    """The name of a source's unit: ``min``, or ``units of 15 s`` for an unusual unit."""
    known = {unit.seconds: unit.name for unit in UNITS}
    return known.get(seconds_per_unit, f"units of {format_duration(seconds_per_unit)}")


@dataclass(frozen=True, slots=True)
class TimeScale:
    """Writes times of a source for people.

    Attributes:
        seconds_per_unit: Seconds in one unit of the source's times.
        are_dates: True if the times count from 1970-01-01T00:00:00 UTC.
    """

    seconds_per_unit: float
    are_dates: bool = False

    @property
    def unit(self) -> str:
        """The name of the source's unit: ``min``."""
        return unit_name(self.seconds_per_unit)

    @property
    def unit_in_full(self) -> str:
        """The name of the source's unit in a sentence: ``minutes``."""
        return _IN_FULL.get(self.unit, self.unit)

    def moment(self, time: float) -> str:
        """The time of an event as a calendar date, or as a number in the source's unit.

        Args:
            time: Time of the event, in the source's unit.

        Returns:
            ``2024-01-31 14:03:07 UTC``, with milliseconds if they are not 0. Times outside the
            years 1 to 9999 are numbers.
        """
        plain = f"{time:,.10g} {self.unit}"
        if not self.are_dates:
            return plain
        try:
            date = _EPOCH + timedelta(milliseconds=round(time * self.seconds_per_unit * 1e3))
        except OverflowError:
            return plain
        precision = "milliseconds" if date.microsecond else "seconds"
        return f"{date.replace(tzinfo=None).isoformat(' ', precision)} UTC"

    def wait(self, interval: float) -> str:
        """The difference of two times in the source's unit, as a duration."""
        return format_duration(interval * self.seconds_per_unit)


def axis_ticks(low: float, high: float, *, most: int = 8) -> list[float]:
    """Round durations in seconds that label a logarithmic axis.

    Args:
        low: Lower end of the axis in seconds, above 0.
        high: Upper end of the axis in seconds.
        most: Maximum number of labels, at least 2.
    """
    inside = [step for step in _STEPS if low <= step <= high]
    if len(inside) > most:
        inside = [step for step in _ROUND_STEPS if low <= step <= high]
    return inside[:: max(1, math.ceil(len(inside) / most))] or [_middle(low, high)]


def typical_unit(values: Iterable[float]) -> Unit:
    """The suitable unit of the median of several durations in seconds."""
    finite = sorted(value for value in values if math.isfinite(value))
    return suitable_unit(finite[len(finite) // 2]) if finite else SECONDS


def _middle(low: float, high: float) -> float:
    return float(f"{math.sqrt(low * high):.2g}")
