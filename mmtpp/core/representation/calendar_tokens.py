"""The calendar of an event as text tokens: its day of week and its time of day."""

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.tokens import TokenIds
from mmtpp.core.times.calendar import WEEK_MINUTES, minutes_of_week

CALENDARS = ("none", "hour", "minute")
_UNIT_MINUTES = {"hour": 60, "minute": 1}


class CalendarTokens:
    """Writes times as ``Tue 08`` or ``Tue 08:15``, every time with the same number of tokens.

    Args:
        ids: Token ids of the vocabulary.
        unit: ``hour`` or ``minute``, the last part that is written.
        time_zone: IANA name of the zone of the clock.
        seconds_per_unit: Seconds in one unit of the times.
        blank: Ids before the day and before the time of day; may be empty.
    """

    def __init__(
        self,
        ids: TokenIds,
        *,
        unit: str,
        time_zone: str,
        seconds_per_unit: float,
        blank: tuple[int, ...] = (),
    ) -> None:
        self._time_zone, self._seconds_per_unit = time_zone, seconds_per_unit
        self._step = _UNIT_MINUTES[unit]
        minutes = np.arange(0, WEEK_MINUTES, self._step)
        weekdays, digits = np.array(ids.weekdays, np.int32), np.array(ids.digits, np.int32)

        def always(piece: tuple[int, ...]) -> NDArray[np.int32]:
            return np.tile(np.array(piece, np.int32), (len(minutes), 1))

        hour, minute = minutes // 60 % 24, minutes % 60
        pieces = [always(blank), weekdays[minutes // 1440], always(blank)]
        pieces += [digits[hour // 10], digits[hour % 10]]
        if unit == "minute":
            pieces += [always(ids.colon), digits[minute // 10], digits[minute % 10]]
        self._table = np.concatenate(pieces, axis=1)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of a time, C."""
        return self._table.shape[1]

    def __call__(self, times: NDArray[np.float64]) -> NDArray[np.int32]:
        """(E, C) token ids of (E,) times, in units since 1970-01-01T00:00:00 UTC."""
        minutes = minutes_of_week(times * self._seconds_per_unit, self._time_zone)
        return self._table[minutes // self._step]
