"""What has been read of a source: whole, and as changes since the last commit."""

from collections.abc import Mapping
from typing import Any


class Positions:
    """Positions by name: the size and time of each file, or the next offset of each partition.

    Args:
        values: Positions of an earlier job.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self._changed: dict[str, Any] = {}

    def set(self, name: str, value: Any) -> None:
        """Note that a part of the source has been read up to a position."""
        self.values[name] = self._changed[name] = value

    @property
    def have_changed(self) -> bool:
        """Whether a position was set after the last call of ``take``."""
        return bool(self._changed)

    def take(self, *, whole: bool) -> dict[str, Any]:
        """All positions, or those that were set after the last call."""
        changed, self._changed = self._changed, {}
        return dict(self.values) if whole else changed
