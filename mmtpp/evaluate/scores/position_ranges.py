"""Ranges of positions in a sequence, and the names of metrics over the targets of one range."""

POSITION_RANGES = {
    "1-49": (1, 50),
    "50-199": (50, 200),
    "200-499": (200, 500),
    "500_up": (500, 2**31),
}
"""First position and end (excluded) of each range, by its name.

Forecasts far into a sequence are visible on their own. Positions count from 0; the first event is
never forecast.
"""
AT = "/at_"
"""Between the name of a metric and its range of positions."""


def at_position(name: str, position_range: str) -> str:
    """Name of a forecast metric over the targets of one range of positions."""
    return f"{name}{AT}{position_range}"


def is_at_position(name: str) -> bool:
    """Whether a metric covers one range of positions only."""
    return AT in name
