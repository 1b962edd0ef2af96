"""Next events drawn from a Hawkes process, each after the true past of a sequence.

Axes: E events of a sequence, N chosen events, M of them that are drawn after, K types, D decays.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.past.decayed_sums import decayed_sums
from mmtpp.core.point_processes.hawkes import Hawkes, decay_factors
from mmtpp.core.point_processes.history import History
from mmtpp.core.times.clock import round_to_ticks

_BISECTIONS = 60  # each halves the range of an interval


class NextEventDraws:
    """The intensities of a process after chosen events, from which next events are drawn.

    Args:
        process: The process.
        histories: Sequences of events.
        chosen: For each sequence, the indices of its events after which events are drawn.
    """

    def __init__(
        self,
        process: Hawkes,
        histories: Sequence[History],
        chosen: Sequence[NDArray[np.integer]],
    ) -> None:
        self._process = process
        self._excitation_NDK = np.concatenate(
            [
                _excitation_after(process, history)[events]
                for history, events in zip(histories, chosen, strict=True)
            ]
        )

    def draw(
        self, index: NDArray[np.integer], rng: np.random.Generator, *, tick: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw the next event after some of the chosen events.

        Args:
            index: (M,) places among the N chosen events, of all sequences one after the other.
            rng: Source of the draws.
            tick: Tick of the clock, in the source's unit; 0 if the times have no tick.

        Returns:
            (M,) intervals in the source's unit, whole numbers of ticks, and (M,) indices of types.
        """
        process, excitation_MDK = self._process, self._excitation_NDK[index]
        intervals = self._draw_intervals(excitation_MDK.sum(axis=2), rng)
        decayed_MD = process.beta * np.exp(-process.beta * intervals[:, None])
        rates_MK = process.mu + np.einsum("md,mdk->mk", decayed_MD, excitation_MDK)
        cumulative_MK = rates_MK.cumsum(axis=1)
        chosen = rng.random(len(index)) * cumulative_MK[:, -1]
        types = (cumulative_MK <= chosen[:, None]).sum(axis=1)
        return round_to_ticks(intervals, tick), np.minimum(types, len(process.mu) - 1)

    def _draw_intervals(
        self, excitation_MD: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(M,) intervals at which the compensator reaches exponential draws, by bisection."""
        process = self._process
        rate = float(process.mu.sum())
        targets = rng.exponential(size=len(excitation_MD))
        low, high = np.zeros(len(targets)), targets / rate  # the background alone reaches them
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            fallen_MD = -np.expm1(-process.beta * middle[:, None])
            is_beyond = rate * middle + (excitation_MD * fallen_MD).sum(axis=1) > targets
            low, high = np.where(is_beyond, low, middle), np.where(is_beyond, middle, high)
        return (low + high) / 2


def _excitation_after(process: Hawkes, history: History) -> NDArray[np.float64]:
    """(E, D, K) expected events of each type that the past still causes after each event."""
    by_decay = [
        decayed_sums(
            decay_factors(history.times, beta)[:, None], process.alpha[:, history.types, index].T
        )[0]
        for index, beta in enumerate(process.beta.tolist())
    ]
    return np.stack(by_decay).transpose(2, 0, 1)
