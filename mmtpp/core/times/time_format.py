"""How the times of a table are written, ``source.columns.time_format``."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mmtpp.core.errors import ConfigError

NUMBER, DURATION = "number", "duration"
EPOCHS = {"epoch_s": 1.0, "epoch_ms": 1e-3, "epoch_us": 1e-6, "epoch_ns": 1e-9}
SETTING = "source.columns.time_format"
_DAY = re.compile(r"%[djx%cDGs]|%-?[de]")
_YEAR = re.compile(r"%[YyGcx]")


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How the times of a table are written.

    Attributes:
        name: Name of the format: empty to detect it; ``number``; ``duration`` (H:MM:SS);
            ``epoch_s``, ``epoch_ms``, ``epoch_us``, ``epoch_ns`` since 1970; or a format of
            ``strptime``.
        time_zone: IANA name of the zone of dates without a zone.
        year: Year of the first date, for dates without a year; 0 rejects such dates.
        seconds_per_unit: Seconds in one unit of the converted dates, above 0.

    Raises:
        ConfigError: The zone or the name is unknown, or the format does not contain a date.
    """

    name: str = ""
    time_zone: str = "UTC"
    year: int = 0
    seconds_per_unit: float = 1.0

    def __post_init__(self) -> None:
        if problem := time_format_problem(self.name, time_zone=self.time_zone, year=self.year):
            raise ConfigError(f"source.columns.{problem}")

    @property
    def has_year(self) -> bool:
        """Whether dates in this format of ``strptime`` contain a year."""
        return _YEAR.search(self.name) is not None


def time_format_problem(name: str, *, time_zone: str, year: int) -> str:
    """The reason why a format of times is invalid; empty for a valid format.

    Args:
        name: Name of the format, see ``TimeFormat``.
        time_zone: IANA name of the zone of dates without a zone.
        year: Year of the first date, for dates without a year; 0 rejects such dates.
    """
    if load_zone(time_zone) is None:
        return f"time_zone = {time_zone!r}: not an IANA time zone, such as UTC or Europe/Berlin"
    if name in ("", NUMBER, DURATION, *EPOCHS):
        return ""
    if not _DAY.search(name):
        return (
            f"time_format = {name!r}: neither one of {NUMBER}, {DURATION}, {', '.join(EPOCHS)}, "
            "nor a format of strptime with a day; times of day need a date: source.columns.date "
            "names its column"
        )
    if problem := _strptime_problem(name):
        return f"time_format = {name!r}: not a format of strptime: {problem}"
    if not _YEAR.search(name) and not year:
        return (
            f"time_format = {name!r} has no year: set source.columns.year to the year of the first "
            "date in each file"
        )
    return ""


def _strptime_problem(name: str) -> str:
    """The reason why ``strptime`` refuses a format; empty for a format that it accepts."""
    try:
        datetime.strptime("", name)
    except re.error:
        return "a directive occurs twice"
    except ValueError as error:
        does_not_match = str(error).startswith("time data")
        return "" if does_not_match else str(error).partition(" in format")[0]
    return ""


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo | None:
    """Load an IANA time zone; None if the name is unknown."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
