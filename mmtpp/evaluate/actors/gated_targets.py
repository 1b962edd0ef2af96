"""Scores of targets by a mixture of a language model and a temporal expert.

Axes: Q forecast events of a row, K types.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.gate import Gate, mix_logs
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.data.store.stored_sequence import Address
from mmtpp.evaluate.actors.model_actor import AssembledRow
from mmtpp.expert.code_forecasts import code_forecasts
from mmtpp.expert.expert_forecasts import GRID_FACTOR
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.expert.stored_past import PositionedEvents, StoredPast

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExpertShare:
    """What an expert says about events, and its share of the mixture.

    Attributes:
        gate: Weights of the language model.
        intervals: Distributions of the interval, on the language model's grid.
        log_density: (Q,) nats of the true interval's density, zero included; NaN if it is unknown.
        type: (Q, K) log probability of the type, from the history alone.
        joint: (Q, K) log probability of the type, given the true interval.
    """

    gate: Gate
    intervals: IntervalForecasts
    log_density: FloatArray
    type: FloatArray
    joint: FloatArray

    def mix_intervals(self, intervals: IntervalForecasts) -> IntervalForecasts:
        """The mixture's distributions of the interval, from the language model's."""
        return intervals.mixed_with(self.intervals, self.gate.time)

    def mix_time_nll(
        self, nll: FloatArray, intervals: IntervalForecasts, *, tick: float
    ) -> FloatArray:
        """(Q,) nats of the true intervals by the mixture.

        Without a clock, densities are conditional on an interval above 0, before and after.

        Args:
            nll: (Q,) nats of the true intervals by the language model.
            intervals: Its distributions of the interval.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
        """
        if tick:
            return -mix_logs(self.gate.time, -nll, self.log_density)
        zero = intervals.zero * (1 - intervals.outside)
        mixed = self.mix_intervals(intervals)
        log_positive = np.log1p(-mixed.zero * (1 - mixed.outside))
        mixed_nll = log_positive - mix_logs(self.gate.time, np.log1p(-zero) - nll, self.log_density)
        return np.where(np.isnan(nll), np.nan, mixed_nll)

    def mix_types(self, log_probability: FloatArray) -> FloatArray:
        """(Q, K) log probability of the type by the mixture, from the history alone."""
        return mix_logs(self.gate.type, log_probability, self.type)

    def mix_joint_types(self, log_probability: FloatArray) -> FloatArray:
        """(Q, K) log probability of the type by the mixture, given the true interval."""
        return mix_logs(self.gate.type, log_probability, self.joint)


class ExpertScorer:
    """Forecasts the questioned events of rows with the expert of a mixture.

    Args:
        gated: The expert and the gate.
        store: Store of the rows.
        type_codes: (K,) codes of the language model's types.
        grid: Grid of its interval forecasts.
    """

    def __init__(
        self,
        gated: GatedExpert,
        store: StoreSettings,
        type_codes: tuple[int, ...],
        grid: IntervalGrid,
    ) -> None:
        self._gated = gated
        self._past = StoredPast(gated.expert, gated.type_codes, store)
        self._codes, self._grid = type_codes, grid

    def __call__(self, sample: AssembledRow) -> ExpertShare:
        """The expert's share in the forecasts of all events with questions, in their order."""
        row = sample.row
        assert row.questions is not None
        events = np.unique(row.questions.event)
        forecasts = self._past.forecasts(positioned_events(sample, events))
        tick = self._gated.expert.tick
        true = sample.event_values("interval")[events]
        given = torch.from_numpy(true.astype(np.float32))
        coarse = forecasts.interval_forecasts(self._grid.coarsened(GRID_FACTOR))
        return ExpertShare(
            gate=self._gated.gate,
            intervals=code_forecasts(forecasts, self._grid, tick=tick),
            log_density=forecasts.log_density(given).numpy(),
            type=self._arranged(forecasts.marginal_type_log_probabilities(coarse)),
            joint=self._arranged(forecasts.type_log_probabilities(given).numpy()),
        )

    def _arranged(self, log_probabilities: FloatArray) -> FloatArray:
        return self._gated.arrange_types(log_probabilities, self._codes)


def positioned_events(sample: AssembledRow, events: NDArray[np.integer]) -> list[PositionedEvents]:
    """Places of a row's events in the store, by window.

    Args:
        sample: A row with its windows.
        events: Indices in the row, increasing. The index after the last event of the last window
            asks for the event that follows.
    """
    sizes = np.array([window["end"] - window["start"] for window in sample.windows])
    starts = np.cumsum(sizes) - sizes
    window_of = np.searchsorted(starts, events, side="right") - 1
    return [
        PositionedEvents(
            Address(window["file"], window["group"], window["row"]),
            window["sequence_id"],
            window["start"] + events[window_of == index].astype(np.int64) - starts[index],
        )
        for index, window in enumerate(sample.windows)
        if (window_of == index).any()
    ]
