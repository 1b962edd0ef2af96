"""The training distribution of intervals and types, without any history.

A histogram with 128 bins per octave has more bins than a small training set has intervals. So the
distribution of the positive intervals is a mixture of

- the histogram itself, which keeps the intervals that a source repeats exactly (whole minutes);
- kernel estimates of the logarithm of the interval, one for every width in ``WIDTHS``;
- a log-uniform distribution over the grid, so that an unseen interval has a finite cost.

The weights maximise the leave-one-out likelihood of the training intervals, plus one
pseudo-interval for the log-uniform part. This objective is concave, and expectation maximisation
finds the weights. Likelihoods are defined for ticks of the clock, as in
``IntervalForecasts.density``.

Axes: N events, G bins of the grid, S bins that training intervals have, C components, K types.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr  # pyright: ignore[reportMissingTypeStubs]

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid

FloatArray = NDArray[np.float64]
WIDTHS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)  # standard deviations, in nats
ITERATIONS = 300  # steps of expectation maximisation
ON_EDGE = 1e-6  # ticks; a tick this close to an edge may have the code of the bin on either side
ROWS = 256  # number of bins whose kernels are in memory at once


@dataclass(frozen=True, slots=True)
class TrainingDistribution:
    """The smoothed distribution of training intervals, and the frequencies of their types.

    Simultaneous events have a separate probability. Every type has 1 / K of a pseudo-event.

    Attributes:
        zero: Probability of an interval of zero.
        mass: (G,) probability of each bin of the grid.
        type_logs: (K,) log-probabilities of the types.
    """

    zero: float
    mass: FloatArray
    type_logs: FloatArray

    @classmethod
    def fit(
        cls,
        intervals: FloatArray,
        types: NDArray[np.integer],
        grid: IntervalGrid,
        num_types: int,
        *,
        tick: float,
    ) -> "TrainingDistribution":
        """Fit the distributions to training events.

        Args:
            intervals: (N,) intervals before the events, in the source's unit; N at least 1.
            types: (N,) index of the type of each event.
            grid: Grid of the forecasts.
            num_types: Number of types, K.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
        """
        positive = intervals[intervals > 0]
        zero = (len(intervals) - len(positive) + 0.5) / (len(intervals) + 1)
        mass = (1 - zero) * interval_mass(positive, grid, tick=tick)
        frequencies = np.bincount(types, minlength=num_types) + 1 / num_types
        return cls(zero, mass, np.log(frequencies / frequencies.sum()))

    def forecasts(self, size: int, grid: IntervalGrid) -> IntervalForecasts:
        """The same forecast for a number of events, on the grid of ``fit``."""
        return IntervalForecasts(
            grid, np.full(size, self.zero), np.tile(self.mass, (size, 1)), np.zeros(size)
        )

    def interval_nll(self, intervals: FloatArray, grid: IntervalGrid, *, tick: float) -> FloatArray:
        """(N,) nats of intervals, as the temporal expert counts them.

        Without a tick an interval of zero has the nats of its probability, and a positive one those
        of its density, which is not conditional on being positive.

        Args:
            intervals: (N,) intervals inside the grid, in the source's unit.
            grid: Grid of ``fit``.
            tick: Tick of the clock, in the source's unit; 0 where the times have none.
        """
        values, place = np.unique(intervals, return_inverse=True)
        nll: FloatArray = np.empty(len(values))
        for start in range(0, len(values), ROWS):
            rows = slice(start, start + ROWS)
            part = values[rows]
            nll[rows] = self.forecasts(len(part), grid).nll(part, tick=tick)
        if not tick:
            nll -= np.log1p(-self.zero)
            nll[values <= 0] = -np.log(self.zero)
        by_event: FloatArray = nll[place]
        return by_event


def interval_mass(positive: FloatArray, grid: IntervalGrid, *, tick: float) -> FloatArray:
    """Smooth the distribution of positive intervals.

    Args:
        positive: (N,) training intervals above 0, in the source's unit; N may be 0.
        grid: Grid whose range contains all intervals.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.

    Returns:
        (G,) probability of each bin; the sum is 1.
    """
    bounds = np.log(_tick_bounds(grid, tick))
    uniform = np.diff(bounds) / (bounds[-1] - bounds[0])
    if not len(positive):
        return uniform
    ticks = np.maximum(np.rint(positive / tick), 1) * tick if tick else positive
    coded = grid.bin_of_code(ticks)
    all_bins = np.where(coded < 0, grid.bin_at(ticks), coded)  # rounding may leave the grid
    by_bin = np.bincount(all_bins, minlength=len(uniform)).astype(np.float64)
    bins = np.flatnonzero(by_bin)
    counts = by_bin[bins]
    centres = np.bincount(all_bins, np.log(ticks), len(uniform))[bins] / counts
    left = max(1, len(positive) - 1)
    masses = [uniform, by_bin / len(positive)]
    likelihoods = [uniform[bins], (counts - 1) / left]
    for width in WIDTHS:
        mass, itself = _kernel_mass(centres, counts, bins, bounds, width)
        masses.append(mass)
        likelihoods.append((mass[bins] * len(positive) - itself).clip(min=0) / left)
    weights = _mixture_weights(np.stack(likelihoods, axis=1), counts)
    return weights @ np.stack(masses)


def _tick_bounds(grid: IntervalGrid, tick: float) -> FloatArray:
    """(G + 1,) bounds of the bins, half-way between ticks of the clock.

    A bin contains the whole cells of the ticks that have its code, so a bin with two ticks gets
    twice the probability of a bin with one tick, and a bin without ticks is empty. Without a
    clock the bounds are the edges of the bins.
    """
    if not tick:
        return np.maximum(grid.edges, grid.edges[1] / 2)
    last = np.floor(grid.edges[1:] / tick + ON_EDGE)
    on_edge = np.abs(last - grid.edges[1:] / tick) <= ON_EDGE
    codes = grid.bin_of_code(last * tick)
    last -= on_edge & (codes != np.arange(len(last)))
    start = max(tick, grid.edges[1]) / 2
    return np.maximum(np.append(start, (last + 0.5) * tick), start)


def _kernel_mass(
    centres: FloatArray,
    counts: FloatArray,
    bins: NDArray[np.int64],
    bounds: FloatArray,
    width: float,
) -> tuple[FloatArray, FloatArray]:
    """Estimate the distribution with normal kernels, which are truncated at the outer bounds.

    Args:
        centres: (S,) logarithms of intervals.
        counts: (S,) number of intervals at each centre.
        bins: (S,) index of the bin of each centre.
        bounds: (G + 1,) logarithms of the bins' bounds.
        width: Standard deviation of the kernel, in nats.

    Returns:
        mass: (G,) probability of each bin.
        itself: (S,) probability that the kernel of an interval gives to the interval's bin.
    """
    total, itself = np.zeros(len(bounds) - 1), np.empty(len(centres))
    for start in range(0, len(centres), ROWS):
        rows = slice(start, start + ROWS)
        cdf = ndtr((bounds - centres[rows, None]) / width)
        mass = np.diff(cdf, axis=1) / (cdf[:, -1:] - cdf[:, :1])
        total += counts[rows] @ mass
        itself[rows] = np.take_along_axis(mass, bins[rows, None], axis=1)[:, 0]
    return total / counts.sum(), itself


def _mixture_weights(likelihoods: FloatArray, counts: FloatArray) -> FloatArray:
    """(C,) weights of the components, by expectation maximisation; the sum is 1.

    Args:
        likelihoods: (S, C) probability of an interval of each bin under each component fitted to
            the other intervals; above 0 for component 0, which gets one pseudo-interval.
        counts: (S,) number of intervals.
    """
    weights = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    for _ in range(ITERATIONS):
        joint = likelihoods * weights
        expected = counts @ (joint / joint.sum(axis=1, keepdims=True))
        expected[0] += 1
        weights = expected / expected.sum()
    return weights
