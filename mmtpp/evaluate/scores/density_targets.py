"""Forecasts that are densities, and their scores: columns of ``targets.TARGET_SCHEMA``.

Axes: N targets, K types.
"""

import numpy as np
import torch

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.evaluate.scores.targets import time_columns, type_columns
from mmtpp.expert.expert_forecasts import ExpertForecasts

_TARGETS_PER_PASS = 512  # each needs one number for every bin of the grid and every component


def density_columns(
    forecasts: ExpertForecasts,
    intervals: torch.Tensor,
    types: np.ndarray,
    *,
    grid: IntervalGrid,
    codes: np.ndarray,
) -> dict[str, np.ndarray]:
    """Forecasts of N targets and their scores, by column.

    Args:
        forecasts: Forecasts of the targets.
        intervals: (N,) true intervals in the source's unit, whole numbers of ticks.
        types: (N,) indices of the true types among ``codes``.
        grid: Grid of the interval forecasts.
        codes: (K,) codes of the types that the model knows.
    """
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, max(1, len(types)), _TARGETS_PER_PASS):
        part = slice(start, start + _TARGETS_PER_PASS)
        chosen, true = forecasts.select(part), intervals[part]
        on_grid = chosen.on_grid(grid)
        log_density, joint = chosen.log_likelihoods(true)
        time = time_columns(on_grid.intervals(), true.double().numpy(), tick=forecasts.tick)
        time["time_nll"] = chosen.interval_nll(true, log_density)
        marginal = on_grid.type_log_probabilities()
        types_of_part = type_columns("", marginal, types[part], codes)
        joint_types = type_columns("joint_", joint.numpy(), types[part], codes)
        parts.append({**time, **types_of_part, **joint_types})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
