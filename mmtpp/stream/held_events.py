"""Events that wait until no earlier event is expected."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtpp.stream.landed_events import EVENT_SCHEMA

_ORDER = "arrival"


class HeldEvents:
    """Events in the order of their arrival.

    Args:
        events: Events of an earlier job, ``EVENT_SCHEMA``.
    """

    def __init__(self, events: pa.Table) -> None:
        self._tables = [events]

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def add(self, events: pa.Table) -> None:
        """Hold more events."""
        self._tables.append(events)

    def earliest_half(self) -> float:
        """Time up to which the earlier half of the events lies; there must be an event."""
        times = np.sort(self.table()["time"].to_numpy())
        return float(times[(len(times) - 1) // 2])

    def newest(self) -> float:
        """Time of the newest event; minus infinity without events."""
        newest = pc.max(self.table()["time"]).as_py()  # pyright: ignore[reportAttributeAccessIssue]
        return -np.inf if newest is None else newest

    def table(self) -> pa.Table:
        """All held events."""
        self._tables = [pa.concat_tables(self._tables)]
        return self._tables[0]

    def release(self, up_to: float) -> pa.Table:
        """Remove events up to a time.

        Args:
            up_to: Time of the last event to release, in the source's unit.

        Returns:
            The events by sequence, in order of time; simultaneous ones in order of arrival.
        """
        events = self.table()
        is_released = events["time"].to_numpy() <= up_to
        self._tables = [events.filter(pa.array(~is_released))]
        released = events.filter(pa.array(is_released))
        arrival = pa.array(np.arange(len(released)))
        keys = [(name, "ascending") for name in ("sequence", "time", _ORDER)]
        return released.append_column(_ORDER, arrival).sort_by(keys).drop_columns([_ORDER])


def no_events() -> pa.Table:
    """A table without events."""
    return EVENT_SCHEMA.empty_table()
