"""Distributions of the next interval, read off the probabilities of its first two bytes.

Two bytes are sign, exponent and seven bits of the mantissa: a grid of 128 steps an octave, so a
histogram over it resolves an interval to 0.8 %. Within a step the probability is taken as uniform.

Axes: B targets, S expanded first bytes, G steps of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmtpp.core.timecode import bin_edges, encode_intervals

MAX_FIRST_BYTE = 0x7E  # intervals below 1.7e38; the next holds infinity
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IntervalRange:
    """What positive training intervals span, in the source's time unit.

    Attributes:
        smallest: taken as the tick of the clock that the times were read from, or finer.
        largest: of them.
    """

    smallest: float
    largest: float

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
    """

    first_bytes: tuple[int, ...]
    edges: FloatArray

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
        return cls(tuple(first.tolist()), np.append(0.0, low))


@dataclass(frozen=True, slots=True)
class IntervalForecasts:
    """Distributions of the waiting time to the next event, in the source's time unit.

    Attributes:
        edges: (G + 1,) of the steps.
        zero: (B,) probability that the events are simultaneous.
        mass: (B, G) probability of each step; with ``zero`` it sums to 1.
        outside: (B,) probability that the model gave to intervals off the grid, which is left out.
    """

    edges: FloatArray
    zero: FloatArray
    mass: FloatArray
    outside: FloatArray

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
        return cls(grid.edges, zero / inside, mass / inside[:, None], 1 - inside)

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
        at_edges = self._cdf_at_edges()
        values = np.asarray(intervals, dtype=np.float64)
        step = np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, None)
        inside = step < len(self.edges) - 1
        step = np.minimum(step, len(self.edges) - 2)
        share = (values - self.edges[step]) / (self.edges[step + 1] - self.edges[step])
        rows = np.arange(len(self))
        found = at_edges[rows, step] + share * self.mass[rows, step]
        return np.where(values < 0, 0.0, np.where(inside, found, 1.0))

    def survival(self, intervals: ArrayLike) -> FloatArray:
        """(B,) probability of waiting longer than this."""
        return 1 - self.cdf(intervals)

    def density(self, intervals: ArrayLike, *, resolution: float) -> FloatArray:
        """(B,) probability of each interval's tick of the clock over the tick's width.

        Times are known to the ticks of a clock. What lies within half a tick counts, so that codes
        finer than the clock are worth no more than a density that is smooth, and simultaneous
        events have a finite one.

        Args:
            intervals: one for each target.
            resolution: width of a tick, above 0, in the source's time unit.
        """
        values = np.asarray(intervals, dtype=np.float64)
        low, high = np.maximum(values - resolution / 2, 0), values + resolution / 2
        narrow = self._step_density(values)
        begins = np.where(low > 0, self.cdf(low), 0.0)
        ticked = (self.cdf(high) - begins) / (high - low)
        # a difference of cumulated probabilities loses what a tick far below a step is worth
        width = np.diff(self.edges)[self._step(values)]
        return np.where((resolution < width) & (low > 0), narrow, ticked)

    def nll(self, intervals: ArrayLike, *, resolution: float) -> FloatArray:
        """(B,) nats: minus the logarithm of ``density``; infinite off the grid."""
        with np.errstate(divide="ignore"):
            return -np.log(np.maximum(self.density(intervals, resolution=resolution), 0))

    def hazard(self, intervals: ArrayLike) -> FloatArray:
        """(B,) density over survival: the intensity of the process after so long a silence."""
        survival = self.survival(intervals)
        density = self._step_density(np.asarray(intervals, dtype=np.float64))
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

    def sample(self, rng: np.random.Generator) -> FloatArray:
        """(B,) one interval drawn from each distribution."""
        draws = rng.random(len(self))
        cdf = self._cdf_at_edges()
        step = np.minimum((cdf[:, 1:] < draws[:, None]).sum(axis=1), self.mass.shape[1] - 1)
        rows = np.arange(len(self))
        share = (draws - cdf[rows, step]) / np.maximum(self.mass[rows, step], 1e-300)
        values = self.edges[step] + np.clip(share, 0, 1) * np.diff(self.edges)[step]
        return np.where(draws <= self.zero, 0.0, values)

    def _cdf_at_edges(self) -> FloatArray:
        """(B, G + 1), from ``zero`` to 1."""
        cdf = np.empty((len(self), len(self.edges)))
        cdf[:, 0] = self.zero
        np.cumsum(self.mass, axis=1, out=cdf[:, 1:])
        cdf[:, 1:] += self.zero[:, None]
        return np.minimum(cdf, 1.0)

    def _step(self, values: FloatArray) -> NDArray[np.int64]:
        step = np.searchsorted(self.edges, values, side="right") - 1
        return np.clip(step, 0, len(self.edges) - 2)

    def _step_density(self, values: FloatArray) -> FloatArray:
        """(B,) of the step each value lies in, 0 off the grid."""
        step = self._step(values)
        density = self.mass[np.arange(len(self)), step] / np.diff(self.edges)[step]
        return np.where((values >= 0) & (values < self.edges[-1]), density, 0.0)
