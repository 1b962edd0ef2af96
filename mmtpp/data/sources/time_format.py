"""How the times of a table are written."""

import re
from dataclasses import dataclass

from mmtpp.core.errors import ConfigError
from mmtpp.data.sources import dates

NUMBER, DURATION = "number", "duration"
EPOCHS = {"epoch_s": 1.0, "epoch_ms": 1e-3, "epoch_us": 1e-6, "epoch_ns": 1e-9}
SETTING = "source.columns.time_format"


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
        if dates.load_zone(self.time_zone) is None:
            raise ConfigError(
                f"source.columns.time_zone = {self.time_zone!r}: not an IANA time zone, such as "
                "UTC or Europe/Berlin"
            )
        if self.name in ("", NUMBER, DURATION, *EPOCHS):
            return
        if not re.search(r"%[djx%cDGs]|%-?[de]", self.name):
            raise ConfigError(
                f"{SETTING} = {self.name!r}: neither one of {NUMBER}, {DURATION}, "
                f"{', '.join(EPOCHS)}, nor a format of strptime with a day",
                cause="times of day need a date: source.columns.date names its column",
            )
        if not self.has_year and not self.year:
            raise ConfigError(
                f"{SETTING} = {self.name!r} has no year: set source.columns.year to the year of "
                "the first date in each file"
            )

    @property
    def has_year(self) -> bool:
        """Whether dates in this format of ``strptime`` contain a year."""
        return re.search(r"%[YyGcx]", self.name) is not None
