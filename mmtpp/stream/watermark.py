"""The time up to which events are complete, except for late ones."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping


class Watermark:
    """Follows the newest time of each partition, and how long each has been silent.

    Args:
        allowed_lateness: Time by which an event may arrive too late, in the source's unit.
        idle_release_s: Time without events after which a partition is not waited for, in seconds.
        newest: Newest times of an earlier job by partition, in the source's unit.
        now: Clock in seconds that never jumps.
    """

    def __init__(
        self,
        allowed_lateness: float,
        idle_release_s: float,
        newest: Mapping[str, float],
        now: Callable[[], float],
    ) -> None:
        self._allowed_lateness, self._idle_release_s = allowed_lateness, idle_release_s
        self.newest = dict(newest)
        self._now = now
        self._started = now()
        self._active: dict[str, float] = {}  # when the last event of a partition came

    def observe(self, partition: str, newest: float | None) -> None:
        """Note that events came.

        Args:
            partition: Name of their partition.
            newest: Time of the newest of them; None if all were rejected.
        """
        self._active[partition] = self._now()
        if newest is not None:
            self.newest[partition] = max(newest, self.newest.get(partition, -math.inf))

    def silent(self, partitions: Iterable[str]) -> set[str]:
        """Partitions that may be idle: without events for ``idle_release_s``, or without any ever.

        Whether a partition has events that were not read yet is known to the source alone.
        """
        limit = self._now() - self._idle_release_s
        return {
            name
            for name in partitions
            if name not in self.newest or self._active.get(name, self._started) <= limit
        }

    def value(self, partitions: Collection[str], idle: Collection[str]) -> float:
        """The time up to which events can be released, in the source's unit.

        Args:
            partitions: Names of all partitions.
            idle: Partitions that are not waited for.

        Returns:
            The smallest newest time of the other partitions less the allowed lateness; infinity if
            no partition is waited for; minus infinity before each of them had an event.
        """
        newest = [self.newest.get(name, -math.inf) for name in partitions if name not in idle]
        return min(newest) - self._allowed_lateness if newest else math.inf
