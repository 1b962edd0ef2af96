"""Which events are similar to their predecessor and may be written as one token."""

import numpy as np
from numpy.typing import NDArray

STRATEGIES = ("none", "temporal")


def similar_events(
    intervals: NDArray[np.float64], *, strategy: str, delta: float
) -> NDArray[np.bool_]:
    """Mark the events that a compression strategy replaces by one similar-event token.

    ``temporal`` compares each interval with the one directly before it, marked or not, so marks do
    not depend on each other: the marks of any prefix are the prefix of the marks.

    Args:
        intervals: (E,) waiting times in the source's time unit; finite, not negative.
        strategy: ``none`` marks nothing; ``temporal`` marks where
            ``|interval[i] - interval[i-1]| < delta``.
        delta: threshold in the source's time unit, the paper's capital delta; 0 marks nothing.

    Returns:
        (E,) True where the event is similar. Never True for the first event.

    Raises:
        ValueError: an unknown strategy, a negative delta, or an interval that is not finite.

    Source: MM-TPP, adaptive temporal compression; strict "<" as in the authors' stage-1 script.
        Forward in both stages (the published stage 2 walks backwards).
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; one of {', '.join(STRATEGIES)}")
    if not delta >= 0:
        raise ValueError(f"delta is {delta}; it must be 0 or more")
    if not np.isfinite(intervals).all() or (intervals < 0).any():
        raise ValueError("intervals must be finite and not negative")
    similar = np.zeros(len(intervals), dtype=np.bool_)
    if strategy == "temporal":
        similar[1:] = np.abs(np.diff(intervals)) < delta
    return similar
