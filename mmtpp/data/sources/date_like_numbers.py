"""Detect numbers that are probably dates: 20240131, milliseconds since 1970, times of day."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from mmtpp.core.times.time_format import EPOCHS, NUMBER, SETTING
from mmtpp.data.sources.dates import SECONDS_A_DAY

_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}
_MIN_TIMES_OF_DAY = 20  # distinct numbers, of which other data would not all be times of day
_SMALLEST_DATE = 19_000_101
_SAMPLE = 100
_YEAR = 365.2425 * SECONDS_A_DAY
_EPOCH_RANGE = 20 * _YEAR, 130 * _YEAR  # 1990 to 2100
_FAR = 300 * _YEAR  # 2270, later than the clocks of files


def describe_date_like_numbers(numbers: Sequence[float], *, seconds_per_unit: float) -> str:
    """Describe the dates that most of the first numbers look like; empty if they look like none.

    Args:
        numbers: Times from a kind of source without dates.
        seconds_per_unit: Seconds in one unit of the times.
    """
    sample = list(numbers[:_SAMPLE])
    if sample and abs(sample[0]) > _SMALLEST_DATE:
        return date_problem(sample, seconds_per_unit=seconds_per_unit)
    return ""


def date_problem(numbers: list[float], *, seconds_per_unit: float) -> str:
    """Describe the dates that most of the numbers look like; empty if they look like none.

    Args:
        numbers: Times of one file.
        seconds_per_unit: Seconds in one unit of the times.

    Returns:
        A message with the setting that decides between number and date.
    """
    large = sum(abs(value) >= _SMALLEST_DATE for value in numbers)
    if 2 * large <= len(numbers):
        return _time_of_day_problem(numbers)
    for name, is_date in _COMPACT_CHECKS.items():
        count = sum(map(is_date, numbers))
        if 2 * count > len(numbers):
            example = next(value for value in numbers if is_date(value))
            return _message(count, len(numbers), f"{example:.0f}", name)
    far = [abs(value) * seconds_per_unit > _FAR for value in numbers]
    if 2 * sum(far) > len(numbers):
        for name, scale in EPOCHS.items():
            count = sum(_EPOCH_RANGE[0] < value * scale < _EPOCH_RANGE[1] for value in numbers)
            if 2 * count > len(numbers):
                return _message(count, len(numbers), f"{numbers[0]:.0f}", name)
    return ""


def _time_of_day_problem(numbers: list[float]) -> str:
    """A message if the numbers look like HHMMSS; empty otherwise."""
    if max(numbers) >= 1e4 and len(set(numbers)) >= _MIN_TIMES_OF_DAY:
        count = sum(map(_is_time_of_day, numbers))
        if count == len(numbers):
            example = f"{max(numbers):06.0f}"
            return (
                f"times such as {example} look like times of day, HHMMSS: name the column of the "
                f'date, source.columns.date, and set {SETTING} = "DATE %H%M%S" with DATE its '
                f'format; or set {SETTING} = "{NUMBER}" if they are numbers'
            )
    return ""


def _message(count: int, num_times: int, example: str, name: str) -> str:
    return (
        f"{count:,} of {num_times:,} times of this file look like dates written as numbers, such "
        f'as {example}: set {SETTING} = "{name}" for dates, or "{NUMBER}" for numbers in the '
        "source's unit"
    )


def _is_compact_date(digits: int, name: str, value: float) -> bool:
    if not (value.is_integer() and 10 ** (digits - 1) <= value < 10**digits):
        return False
    text = f"{value:.0f}"
    if not "1900" <= text[:4] <= "2100":
        return False
    try:
        datetime.strptime(text, name).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


_COMPACT_CHECKS: dict[str, Callable[[float], bool]] = {
    name: partial(_is_compact_date, digits, name) for digits, name in _COMPACT.items()
}


def _is_time_of_day(value: float) -> bool:
    return (
        value.is_integer() and 0 <= value < 240_000 and value % 100 < 60 and value // 100 % 100 < 60
    )
