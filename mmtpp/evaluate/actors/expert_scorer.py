"""The expert's forecasts of rows, for a mixture with a language model.

Axes: Q forecast events of a row, K types.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.evaluate.gated_forecasts import GatedForecasts
from mmtpp.expert.code_forecasts import code_forecasts
from mmtpp.expert.expert_forecasts import GRID_FACTOR
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.expert.stored_past import StoredPast
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.event_places import positioned_events

FloatArray = NDArray[np.float64]


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

    def __call__(self, sample: AssembledRow) -> GatedForecasts:
        """The expert's forecasts of all events with questions, in their order."""
        row = sample.row
        assert row.questions is not None
        events = np.unique(row.questions.event)
        forecasts = self._past.forecasts(positioned_events(sample, events))
        tick = self._gated.expert.tick
        true = sample.event_values("interval")[events]
        given = torch.from_numpy(true.astype(np.float32))
        coarse = forecasts.on_grid(self._grid.coarsened(GRID_FACTOR))
        log_density, joint = forecasts.log_likelihoods(given)
        return GatedForecasts(
            gate=self._gated.gate,
            intervals=code_forecasts(forecasts, self._grid, tick=tick),
            likelihoods=forecasts.interval_likelihoods(given, log_density),
            type=self._arranged(coarse.type_log_probabilities()),
            joint=self._arranged(joint.numpy()),
        )

    def _arranged(self, log_probabilities: FloatArray) -> FloatArray:
        return self._gated.arrange_types(log_probabilities, self._codes)
