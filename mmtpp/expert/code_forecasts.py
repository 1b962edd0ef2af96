"""Interval forecasts of an expert on the grid of time codes, on which a language model forecasts.

A bin of that grid holds the probability of the intervals with its code. Intervals are whole
numbers of ticks, so a bin has the probability of its ticks, and a bin without a tick has none.

Axes: N events, G bins of the grid.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.expert.expert_forecasts import GRID_FACTOR, ExpertForecasts

_EDGE_TOLERANCE = 1e-6  # ticks
FloatArray = NDArray[np.float64]


def code_forecasts(
    forecasts: ExpertForecasts, grid: IntervalGrid, *, tick: float
) -> IntervalForecasts:
    """The distributions of the interval on a grid of time codes.

    The cumulative probability is computed at every eighth edge, and everywhere where the bins are
    narrower than a tick. Between these edges it is interpolated; within 4 % of an interval the
    density of a log-normal mixture hardly changes.

    Args:
        forecasts: Forecasts after N events.
        grid: Grid of time codes.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
    """
    edges = tick_edges(grid.edges, tick=tick)
    is_narrow = np.append(grid.widths < tick, True)  # the last edge is always computed
    is_computed = is_narrow | (np.arange(len(edges)) % GRID_FACTOR == 0)
    computed = np.unique(np.append(0.0, edges[is_computed]))
    coarse = forecasts.on_grid(replace(grid, edges=computed)).intervals()
    inside = 1 - coarse.outside
    cumulative = np.empty((len(coarse), len(computed)))
    cumulative[:, 0] = coarse.zero
    np.cumsum(coarse.mass, axis=1, out=cumulative[:, 1:])
    cumulative[:, 1:] += coarse.zero[:, None]
    cumulative *= inside[:, None]
    at_edges = _interpolated(cumulative, computed, edges)
    zero, mass = at_edges[:, 0], np.diff(at_edges, axis=1)
    total = at_edges[:, -1]
    return IntervalForecasts(grid, zero / total, mass / total[:, None], 1 - total)


def tick_edges(edges: FloatArray, *, tick: float) -> FloatArray:
    """(G + 1,) edges moved down to the middle between two ticks; unchanged without a tick.

    A continuous distribution has the probability of a bin's ticks between the moved edges: an
    interval belongs to its nearest tick. The tick of zero has no bin, so no edge is below half a
    tick.

    Args:
        edges: (G + 1,) edges of the bins, from 0.
        tick: Tick of the clock; 0 if the times have no tick.
    """
    if not tick:
        return edges
    first_tick = np.maximum(np.ceil(edges / tick - _EDGE_TOLERANCE), 1)
    return (first_tick - 0.5) * tick


def _interpolated(values: FloatArray, at: FloatArray, wanted: FloatArray) -> FloatArray:
    """(N, wanted) linear interpolation of each row of values (N, at)."""
    right = np.clip(np.searchsorted(at, wanted, side="left"), 1, len(at) - 1)
    share = (wanted - at[right - 1]) / (at[right] - at[right - 1])
    return values[:, right - 1] * (1 - share) + values[:, right] * share
