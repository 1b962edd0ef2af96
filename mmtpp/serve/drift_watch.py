"""Whether live events still follow the forecasts of the expert: residuals and surprises."""

import time
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from mmtpp.core.forecasting.residuals import Uniformity, draw_pit, exponential_residuals
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.times.clock import round_to_ticks
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.sequence_state import SequenceState, forecasts_after

WINDOW = 10_000
"""Number of the newest compared events over which the figures are computed."""
TOGETHER, PATIENCE_S = 32, 1.0
"""Number of events that are compared at once. Fewer are compared when an event comes after the
first one has waited this long, in seconds, and by ``figures``."""


class DriftWatch:
    """Compares new events with the forecasts before them, some of them under load.

    Args:
        expert: The expert.
        events_per_s: Largest number of events that are compared in a second, about.
    """

    def __init__(self, expert: Expert, *, events_per_s: float) -> None:
        self._expert, self._events_per_s = expert, events_per_s
        self._rng = np.random.default_rng(0)
        self._pit: deque[float] = deque(maxlen=WINDOW)
        self._surprises: deque[float] = deque(maxlen=WINDOW)
        self._waiting: list[tuple[SequenceState, float, int]] = []  # with time and type after it
        self._next = self._waiting_since = 0.0  # on the monotonic clock
        self.num_alerts = 0

    def add(
        self, states: Sequence[SequenceState | None], past: PastEvents, sizes: Sequence[int]
    ) -> None:
        """Compare the first new event of each sequence, unless enough events were compared.

        Args:
            states: States of the sequences before their new events; None for a sequence that
                begins, whose first event is not forecast.
            past: The new events, one sequence after the other.
            sizes: Number of new events of each sequence, above 0.
        """
        now = time.monotonic()
        if now >= self._next:
            starts = np.cumsum([0, *sizes[:-1]]).tolist()
            known = [
                (state, float(past.times[start]), int(past.types[start]))
                for state, start in zip(states, starts, strict=True)
                if state
            ]
            self._next = now + len(known) / self._events_per_s
            if not self._waiting:
                self._waiting_since = now
            self._waiting += known
        if len(self._waiting) >= TOGETHER or now - self._waiting_since > PATIENCE_S:
            self._compare()

    def _compare(self) -> None:
        """Compare the waiting events with the forecasts before them."""
        if not self._waiting:
            return
        before = [state for state, _, _ in self._waiting]
        times = np.array([at for _, at, _ in self._waiting])
        types = torch.tensor([code for _, _, code in self._waiting])
        self._waiting.clear()
        forecasts = forecasts_after(self._expert, before)
        last_times = np.array([float(state.memory.last_time) for state in before])
        waits = round_to_ticks(times - last_times, self._expert.tick)
        intervals = torch.from_numpy(waits.astype(np.float32))
        of_type = forecasts.type_log_probabilities(intervals).gather(1, types[:, None])[:, 0]
        surprises = -(forecasts.log_density(intervals) + of_type).numpy()
        self._pit.extend(draw_pit(*forecasts.cdf_of_tick(intervals), self._rng).tolist())
        self._surprises.extend(surprises.tolist())
        if self._expert.surprise_limit is not None:
            self.num_alerts += int((surprises > self._expert.surprise_limit).sum())

    def figures(self) -> dict[str, float]:
        """Figures of the newest compared events, by name; none before the first event."""
        self._compare()
        if not self._pit:
            return {}
        pit, surprises = np.array(self._pit), np.array(self._surprises)
        figures = {
            "events": float(len(pit)),
            "residual_mean": float(exponential_residuals(pit).mean()),
            "ks_distance": Uniformity.test(pit).distance,
            "nll_nats_per_event": float(surprises.mean()),
        }
        if self._expert.surprise_limit is not None:
            figures["alert_share"] = float((surprises > self._expert.surprise_limit).mean())
        return figures
