"""Distributions of the next interval, read off the probabilities of its first two bytes.

Two bytes are sign, exponent and seven bits of the mantissa: a grid of 128 steps an octave, so a
histogram over it resolves an interval to 0.8 %. Within a step the probability is taken as uniform.

Axes: B targets, S expanded first bytes, G steps of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmtpp.core.clock import on_ticks
from mmtpp.core.timecode import bin_edges, encode_intervals

_ON_EDGE = 1e-6  # of a tick: so close to an edge it may belong to either step
MAX_FIRST_BYTE = 0x7E  # intervals below 1.7e38; the next holds infinity
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IntervalRange:
    """What positive training intervals span, in the source's time unit.

    Attributes:
        smallest: of them, and no less than a tick.
        largest: of them.
        tick: tick of the clock that the times were read from (``core.clock``); 0 where they have
            none.
    """

    smallest: float
    largest: float
    tick: float

    def grid(self, *, num_bytes: int) -> "IntervalGrid":
        """The steps for these intervals, for time codes of ``num_bytes``."""
        codes = encode_intervals(np.array([self.smallest, self.largest]), num_bytes=num_bytes)
        lowest, highest = np.clip(codes[:, 0], 1, MAX_FIRST_BYTE).tolist()
        return IntervalGrid.of(lowest, highest, num_bytes=num_bytes)


@dataclass(frozen=True, slots=True)
class IntervalGrid:
    """Where forecasts have their probability: what the training intervals span.

    Attributes:
        first_bytes: the first bytes of time codes to be expanded, consecutive, above 0. Codes that
            begin with 0 are intervals of zero.
        edges: (G + 1,) of the steps, from 0, in the source's time unit; the first step lies below
            the first code and is empty.
        num_bytes: of the time codes.
    """

    first_bytes: tuple[int, ...]
    edges: FloatArray
    num_bytes: int

    @classmethod
    def of(cls, lowest: int, highest: int, *, num_bytes: int) -> "IntervalGrid":
        """The grid from one first byte to another, for time codes of ``num_bytes``.

        Raises:
            ValueError: the bytes are not in order or not those of intervals.
        """
        if not 1 <= lowest <= highest <= MAX_FIRST_BYTE:
            raise ValueError(f"first bytes {lowest} to {highest} are not in 1..{MAX_FIRST_BYTE}")
        first = np.arange(lowest, highest + 1)
        codes = np.zeros((256 * len(first) + 1, num_bytes), dtype=np.uint8)
        codes[:-1, 0] = np.repeat(first, 256)
        codes[:-1, 1] = np.tile(np.arange(256), len(first))
        codes[-1, 0] = highest + 1  # its low edge is the high edge of the last
        low, _ = bin_edges(codes)
        return cls(tuple(first.tolist()), np.append(0.0, low), num_bytes)

    @property
    def widths(self) -> FloatArray:
        """(G,) of the steps."""
        return np.diff(self.edges)

    def step_at(self, intervals: FloatArray) -> NDArray[np.int64]:
        """(B,) the step between whose edges each interval lies; the nearest one off the grid."""
        step = np.searchsorted(self.edges, intervals, side="right") - 1
        return np.clip(step, 0, len(self.edges) - 2)

    def step_of_code(self, intervals: FloatArray) -> NDArray[np.int64]:
        """(B,) the step of each interval's own code; an interval on an edge is rounded to one of
        its neighbours. -1 off the grid."""
        codes = encode_intervals(intervals, num_bytes=self.num_bytes).astype(np.int64)
        step = (codes[:, 0] - self.first_bytes[0]) * 256 + codes[:, 1] + 1
        return np.where((step >= 1) & (step < len(self.edges) - 1), step, -1)


@dataclass(frozen=True, slots=True)
class IntervalForecasts:
    """Distributions of the waiting time to the next event, in the source's time unit.

    Attributes:
        grid: of the steps.
        zero: (B,) probability that the events are simultaneous.
        mass: (B, G) probability of each step; with ``zero`` it sums to 1.
        outside: (B,) probability that the model gave to intervals off the grid, which is left out.
        is_smooth: a step holds the probability of all that lies between its edges, as of a process
            in continuous time; otherwise that of the intervals with its code.
    """

    grid: IntervalGrid
    zero: FloatArray
    mass: FloatArray
    outside: FloatArray
    is_smooth: bool = False

    @classmethod
    def of(cls, grid: IntervalGrid, first: FloatArray, second: FloatArray) -> "IntervalForecasts":
        """From the model's probabilities.

        Args:
            grid: whose first bytes were expanded.
            first: (B, 128) probability of each first byte.
            second: (B, S, 256) probability of each second byte after each expanded first one.
        """
        expanded = first[:, list(grid.first_bytes)]
        zero, mass = first[:, 0], (expanded[:, :, None] * second).reshape(len(first), -1)
        inside = zero + mass.sum(axis=1)
        mass = np.concatenate([np.zeros((len(first), 1)), mass], axis=1)
        return cls(grid, zero / inside, mass / inside[:, None], 1 - inside)

    @property
    def edges(self) -> FloatArray:
        """(G + 1,) of the steps."""
        return self.grid.edges

    def __len__(self) -> int:
        return len(self.zero)

    def mean(self) -> FloatArray:
        """(B,) expected interval, the forecast of the least squared error."""
        return self.mass @ ((self.edges[1:] + self.edges[:-1]) / 2)

    def quantiles(self, levels: Sequence[float]) -> FloatArray:
        """(B, levels) the interval that is not exceeded with each probability, 0 to 1.

        The median is the forecast of the least absolute error.
        """
        cdf = self._cdf_at_edges()
        last = self.mass.shape[1] - 1
        values = np.empty((len(self), len(levels)))
        for column, level in enumerate(levels):
            step = np.minimum((cdf[:, 1:] < level).sum(axis=1), last)
            rows = np.arange(len(self))
            inside = level - cdf[rows, step]
            share = np.divide(
                inside, self.mass[rows, step], out=np.zeros(len(self)), where=inside > 0
            )
            width = self.edges[step + 1] - self.edges[step]
            values[:, column] = self.edges[step] + np.minimum(share, 1) * width
            values[level <= self.zero, column] = 0.0
        return values

    def cdf(self, intervals: ArrayLike) -> FloatArray:
        """(B,) probability of at most this interval, one for each target."""
        values = np.asarray(intervals, dtype=np.float64)
        step, share = self._place(values)
        rows = np.arange(len(self))
        found = self._cdf_at_edges()[rows, step] + share * self.mass[rows, step]
        return np.where(values < 0, 0.0, np.minimum(found, 1.0))

    def survival(self, intervals: ArrayLike) -> FloatArray:
        """(B,) probability of waiting longer than this, exact also where it is tiny."""
        values = np.asarray(intervals, dtype=np.float64)
        step, share = self._place(values)
        rows = np.arange(len(self))
        found = self._survival_at_edges()[rows, step + 1] + (1 - share) * self.mass[rows, step]
        return np.where(values < 0, 1.0, found)

    def density(self, intervals: ArrayLike, *, tick: float) -> FloatArray:
        """(B,) probability of each interval's tick of the clock over the tick's width.

        Times are known to the ticks of a clock. So digits finer than the clock are worth nothing,
        and simultaneous events have a finite density: their tick is the first half tick.

        Times without a clock have a density where events are apart, given that they are apart.
        Simultaneous events have a probability and no density, so theirs is NaN.

        Args:
            intervals: one for each target, whole numbers of ticks up to the rounding of times.
            tick: tick of the clock, in the source's time unit; 0 where the times have none.

        Returns:
            Densities per unit of time; 0 off the grid.
        """
        values = on_ticks(np.asarray(intervals, dtype=np.float64), tick)
        if not tick:
            return self._density_apart(values)
        low, high = values - tick / 2, values + tick / 2
        rows = np.arange(len(self))
        if self.is_smooth:
            step = self.grid.step_at(values)
            fine = self.mass[rows, step] / self.grid.widths[step] * tick
            # of small and of large probabilities the differences of other sums are exact
            below = self.cdf(high) - np.where(low > 0, self.cdf(low), 0.0)
            above = np.where(low > 0, self.survival(low), 1.0) - self.survival(high)
            coarse = np.where(self.cdf(low) < 0.5, below, above)
        else:
            step = self.grid.step_of_code(values)
            count = self._ticks_in(step, tick)
            fine = self.mass[rows, step] / np.maximum(count, 1)
            nearest = np.rint((self.edges[1:] + self.edges[:-1]) / 2 / tick)  # of each step
            own = np.rint(values / tick)
            start, end = (np.searchsorted(nearest, own, side=side) for side in ("left", "right"))
            coarse = self._sum_of_steps(start, end) + np.where(values == 0, self.zero, 0.0)
        is_fine = (values > 0) & (step >= 0) & (tick < self.grid.widths[step])
        found = np.where(is_fine, fine, coarse) / tick
        return np.where((low < self.edges[-1]) & (values >= 0), found, 0.0)

    def _density_apart(self, values: FloatArray) -> FloatArray:
        """(B,) density of intervals above 0, given that they are; NaN at 0."""
        place = self.grid.step_at if self.is_smooth else self.grid.step_of_code
        step, rows = place(values), np.arange(len(self))
        apart = np.maximum(1 - self.zero, np.finfo(np.float64).tiny)
        found = self.mass[rows, step] / self.grid.widths[step] / apart
        is_inside = (values < self.edges[-1]) if self.is_smooth else (step >= 0)
        return np.where(values == 0, np.nan, np.where(is_inside & (values > 0), found, 0.0))

    def nll(self, intervals: ArrayLike, *, tick: float) -> FloatArray:
        """(B,) nats: minus the logarithm of ``density``; infinite off the grid, NaN where there is
        no density."""
        with np.errstate(divide="ignore"):
            return -np.log(np.maximum(self.density(intervals, tick=tick), 0))

    def hazard(self, intervals: ArrayLike) -> FloatArray:
        """(B,) density over survival: the intensity of the process after so long a silence."""
        values = np.asarray(intervals, dtype=np.float64)
        step, survival = self.grid.step_at(values), self.survival(values)
        density = self.mass[np.arange(len(self)), step] / self.grid.widths[step]
        return np.divide(density, survival, out=np.full(len(self), np.inf), where=survival > 0)

    def crps(self, intervals: ArrayLike) -> FloatArray:
        """(B,) continuous ranked probability score: the mean absolute error of a distribution.

        The integral over x of (F(x) - [x >= interval]) squared, exact for the piecewise linear F;
        Gneiting and Raftery 2007, equation 20.
        """
        values = np.asarray(intervals, dtype=np.float64)[:, None]
        cdf = self._cdf_at_edges()
        low, high = self.edges[:-1], self.edges[1:]
        split = np.clip(values, low, high)
        middle = cdf[:, :-1] + self.mass * (split - low) / (high - low)

        def integral(a: FloatArray, b: FloatArray, width: FloatArray) -> FloatArray:
            return (a * a + a * b + b * b) / 3 * width

        below = integral(cdf[:, :-1], middle, split - low)
        above = integral(1 - middle, 1 - cdf[:, 1:], high - split)
        beyond = np.maximum(values[:, 0] - self.edges[-1], 0)
        return (below + above).sum(axis=1) + beyond

    def _cdf_at_edges(self) -> FloatArray:
        """(B, G + 1), from ``zero`` to 1."""
        cdf = np.empty((len(self), len(self.edges)))
        cdf[:, 0] = self.zero
        np.cumsum(self.mass, axis=1, out=cdf[:, 1:])
        cdf[:, 1:] += self.zero[:, None]
        return np.minimum(cdf, 1.0)

    def _survival_at_edges(self) -> FloatArray:
        """(B, G + 1), summed from the far end."""
        survival = np.zeros((len(self), len(self.edges)))
        survival[:, :-1] = np.cumsum(self.mass[:, ::-1], axis=1)[:, ::-1]
        return survival

    def _place(self, values: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """(B,) the step each value lies in, and what share of the step lies below it."""
        step = self.grid.step_at(values)
        share = (values - self.edges[step]) / self.grid.widths[step]
        return step, np.clip(share, 0.0, 1.0)

    def _sum_of_steps(self, start: NDArray[np.integer], end: NDArray[np.integer]) -> FloatArray:
        """(B,) probability of the steps from ``start`` to before ``end``."""
        rows = np.arange(len(self))
        below, above = self._cdf_at_edges(), self._survival_at_edges()
        from_below = below[rows, end] - below[rows, start]
        return np.where(below[rows, start] < 0.5, from_below, above[rows, start] - above[rows, end])

    def _ticks_in(self, step: NDArray[np.int64], tick: float) -> NDArray[np.int64]:
        """(B,) whole numbers of ticks that have the code of each step."""
        known = np.maximum(step, 1)
        first = np.ceil(self.edges[known] / tick - _ON_EDGE)
        last = np.floor(self.edges[known + 1] / tick + _ON_EDGE)
        first += self.grid.step_of_code(first * tick) != known
        last -= self.grid.step_of_code(last * tick) != known
        return (last - first + 1).astype(np.int64)
