"""Distributions of the next interval, computed from the probabilities of its first two bytes.

Two bytes hold the sign, the exponent and seven bits of the mantissa. They make a grid of 128 bins
per octave, so a bin is at most 0.8 % wide. Within a bin the probability is uniform.

Axes: B targets, S expanded first bytes, G bins of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmtpp.core.representation.timecode import bin_edges, encode_intervals
from mmtpp.core.times.clock import round_to_ticks

_EDGE_TOLERANCE = 1e-6  # ticks; an interval this close to an edge may belong to either bin
MAX_FIRST_BYTE = 0x7E  # intervals below 1.7e38; the next first byte includes infinity
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IntervalRange:
    """The range of the positive training intervals, in the source's time unit.

    Attributes:
        smallest: Smallest interval, at least one tick.
        largest: Largest interval.
        tick: Tick of the clock that the times were read from (``core.times.clock``); 0 if the times
            have no tick.
    """

    smallest: float
    largest: float
    tick: float

    def joined(self, other: "IntervalRange") -> "IntervalRange":
        """The smallest range that contains both ranges.

        Args:
            other: Range of other training intervals, with the same tick.
        """
        return IntervalRange(
            min(self.smallest, other.smallest), max(self.largest, other.largest), self.tick
        )

    def grid(self, *, num_bytes: int) -> "IntervalGrid":
        """The grid that covers these intervals, for time codes of ``num_bytes``."""
        codes = encode_intervals(np.array([self.smallest, self.largest]), num_bytes=num_bytes)
        lowest, highest = np.clip(codes[:, 0], 1, MAX_FIRST_BYTE).tolist()
        return IntervalGrid.from_first_bytes(lowest, highest, num_bytes=num_bytes)


@dataclass(frozen=True, slots=True)
class IntervalGrid:
    """The bins of a forecast: those of all time codes in the range of training intervals.

    Attributes:
        first_bytes: First bytes of the time codes that are expanded, consecutive, above 0. Codes
            that begin with 0 are intervals of zero.
        edges: (G + 1,) edges of the bins, from 0, in the source's time unit. The first bin lies
            below the first code and is empty.
        num_bytes: Number of bytes of a time code.
    """

    first_bytes: tuple[int, ...]
    edges: FloatArray
    num_bytes: int

    @classmethod
    def from_first_bytes(cls, lowest: int, highest: int, *, num_bytes: int) -> "IntervalGrid":
        """Build the grid of all codes whose first byte lies between two bytes.

        Args:
            lowest: Lowest first byte, at least 1.
            highest: Highest first byte, at most ``MAX_FIRST_BYTE``.
            num_bytes: Number of bytes of a time code.

        Raises:
            ValueError: The bytes are out of order or out of range.
        """
        if not 1 <= lowest <= highest <= MAX_FIRST_BYTE:
            raise ValueError(f"first bytes {lowest} to {highest} are not in 1..{MAX_FIRST_BYTE}")
        first = np.arange(lowest, highest + 1)
        codes = np.zeros((256 * len(first) + 1, num_bytes), dtype=np.uint8)
        codes[:-1, 0] = np.repeat(first, 256)
        codes[:-1, 1] = np.tile(np.arange(256), len(first))
        codes[-1, 0] = highest + 1  # the low edge of this code is the high edge of the last bin
        low, _ = bin_edges(codes)
        return cls(tuple(first.tolist()), np.append(0.0, low), num_bytes)

    @property
    def widths(self) -> FloatArray:
        """(G,) widths of the bins."""
        return np.diff(self.edges)

    def coarsened(self, factor: int) -> "IntervalGrid":
        """The grid of ``factor`` times wider bins, for distributions in continuous time only."""
        edges = np.append(self.edges[0], self.edges[1::factor])
        return replace(self, edges=np.unique(np.append(edges, self.edges[-1])))

    def bin_at(self, intervals: FloatArray) -> NDArray[np.int64]:
        """(B,) the bin whose edges enclose the interval; the nearest bin outside the grid."""
        bins = np.searchsorted(self.edges, intervals, side="right") - 1
        return np.clip(bins, 0, len(self.edges) - 2)

    def bin_of_code(self, intervals: FloatArray) -> NDArray[np.int64]:
        """(B,) the bin of the interval's own code; -1 outside the grid.

        The code of an interval on an edge is one of the two neighbours.
        """
        codes = encode_intervals(intervals, num_bytes=self.num_bytes).astype(np.int64)
        bins = (codes[:, 0] - self.first_bytes[0]) * 256 + codes[:, 1] + 1
        return np.where((bins >= 1) & (bins < len(self.edges) - 1), bins, -1)


@dataclass(frozen=True)  # without slots, for cached properties
class IntervalForecasts:
    """Distributions of the interval until the next event, in the source's time unit.

    Attributes:
        grid: Bins of the distributions.
        zero: (B,) probability that the next event is simultaneous.
        mass: (B, G) probability of the bins; with ``zero`` it sums to 1.
        outside: (B,) probability that the model gave to intervals outside the grid, which the other
            probabilities leave out.
        is_smooth: True if a bin holds the probability of all values between its edges, as in a
            process in continuous time; False if it holds the probability of the intervals with its
            code.
    """

    grid: IntervalGrid
    zero: FloatArray
    mass: FloatArray
    outside: FloatArray
    is_smooth: bool = False

    @classmethod
    def from_byte_probabilities(
        cls, grid: IntervalGrid, first: FloatArray, second: FloatArray
    ) -> "IntervalForecasts":
        """Build the distributions from the model's probabilities.

        Args:
            grid: Grid with the expanded first bytes.
            first: (B, 128) probability of the first bytes.
            second: (B, S, 256) probability of the second bytes after the expanded first bytes.
        """
        expanded = first[:, list(grid.first_bytes)]
        zero, mass = first[:, 0], (expanded[:, :, None] * second).reshape(len(first), -1)
        inside = zero + mass.sum(axis=1)
        mass = np.concatenate([np.zeros((len(first), 1)), mass], axis=1)
        return cls(grid, zero / inside, mass / inside[:, None], 1 - inside)

    @classmethod
    def from_cdf(cls, grid: IntervalGrid, cdf: FloatArray) -> "IntervalForecasts":
        """Build smooth distributions from cumulative probabilities.

        Args:
            grid: The grid.
            cdf: (B, G + 1) probabilities of at most each edge, not decreasing up to rounding. The
                first column is the probability of simultaneous events, and the probability above
                the last column is off the grid.
        """
        zero = cdf[:, 0]
        mass = np.maximum(np.diff(cdf, axis=1), 0.0)
        inside = zero + mass.sum(axis=1)
        outside = np.maximum(1 - inside, 0.0)
        return cls(grid, zero / inside, mass / inside[:, None], outside, is_smooth=True)

    def mixed_with(self, other: "IntervalForecasts", weight: float) -> "IntervalForecasts":
        """The weighted means of the probabilities of two forecasts on the same grid.

        Args:
            other: B forecasts, as smooth as these ones.
            weight: Weight of these forecasts, 0 to 1; the other ones have the remaining weight.

        Raises:
            ValueError: The forecasts have different grids.
        """
        if self.is_smooth != other.is_smooth or not np.array_equal(self.edges, other.edges):
            raise ValueError("the forecasts have different grids")
        inside_self = weight * (1 - self.outside)
        inside_other = (1 - weight) * (1 - other.outside)
        inside = inside_self + inside_other
        share = np.divide(inside_self, inside, out=np.zeros(len(self)), where=inside > 0)
        return replace(
            self,
            zero=share * self.zero + (1 - share) * other.zero,
            mass=share[:, None] * self.mass + (1 - share[:, None]) * other.mass,
            outside=weight * self.outside + (1 - weight) * other.outside,
        )

    @property
    def edges(self) -> FloatArray:
        """(G + 1,) edges of the bins."""
        return self.grid.edges

    def __len__(self) -> int:
        return len(self.zero)

    def split(self) -> list["IntervalForecasts"]:
        """Each of the distributions."""
        columns = (self.zero[:, None], self.mass[:, None], self.outside[:, None])
        return [
            IntervalForecasts(self.grid, *values, self.is_smooth)
            for values in zip(*columns, strict=True)
        ]

    @classmethod
    def join(cls, parts: Sequence["IntervalForecasts"]) -> "IntervalForecasts":
        """Distributions on the same grid, one after the other; at least one.

        Raises:
            ValueError: The distributions have different grids.
        """
        first = parts[0]
        for part in parts:
            same = part.grid is first.grid or np.array_equal(part.edges, first.edges)
            if not same or part.is_smooth != first.is_smooth:
                raise ValueError("the forecasts have different grids")
        zero, mass, outside = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("zero", "mass", "outside")
        )
        return cls(first.grid, zero, mass, outside, first.is_smooth)

    def mean(self) -> FloatArray:
        """(B,) expected interval, the point forecast with the least squared error."""
        return self.mass @ ((self.edges[1:] + self.edges[:-1]) / 2)

    def quantiles(self, levels: Sequence[float]) -> FloatArray:
        """(B, levels) quantiles of the interval at the given levels, 0 to 1.

        The median is the point forecast with the least absolute error.
        """
        cdf = self._cdf_at_edges
        bins = np.stack([self._first_bin_reaching(level) for level in levels], axis=1)
        rows = np.arange(len(self))[:, None]
        inside = np.asarray(levels) - cdf[rows, bins]
        mass = self.mass[rows, bins]
        share = np.divide(inside, mass, out=np.zeros_like(inside), where=inside > 0)
        width = self.edges[bins + 1] - self.edges[bins]
        values = self.edges[bins] + np.minimum(share, 1) * width
        return np.where(np.asarray(levels) <= self.zero[:, None], 0.0, values)

    def cdf(self, intervals: ArrayLike) -> FloatArray:
        """(B,) probability of at most this interval, one interval per target."""
        values = np.asarray(intervals, dtype=np.float64)
        bins, share = self._locate(values)
        rows = np.arange(len(self))
        probability = self._cdf_at_edges[rows, bins] + share * self.mass[rows, bins]
        return np.where(values < 0, 0.0, np.minimum(probability, 1.0))

    def survival(self, intervals: ArrayLike) -> FloatArray:
        """(B,) probability of a longer interval: as exact as the bins, even where it is tiny."""
        values = np.asarray(intervals, dtype=np.float64)
        bins, share = self._locate(values)
        rows = np.arange(len(self))
        probability = self._survival_at_edges[rows, bins + 1] + (1 - share) * self.mass[rows, bins]
        return np.where(values < 0, 1.0, probability)

    def density(self, intervals: ArrayLike, *, tick: float) -> FloatArray:
        """(B,) probability of the interval's tick of the clock, divided by the tick's width.

        Times are known to the ticks of a clock. So digits finer than the clock do not improve the
        density, and simultaneous events have a finite density: their tick is the first half tick.

        Times without a clock have a density where the interval is positive, conditional on that.
        Simultaneous events have a probability but no density, so their density is NaN.

        Args:
            intervals: (B,) intervals, one per target: whole numbers of ticks up to the rounding of
                times.
            tick: Tick of the clock, in the source's time unit; 0 if the times have no tick.

        Returns:
            Densities per unit of time; 0 outside the grid.
        """
        values = round_to_ticks(np.asarray(intervals, dtype=np.float64), tick)
        if not tick:
            return self._density_of_positive(values)
        low, high = values - tick / 2, values + tick / 2
        rows = np.arange(len(self))
        if self.is_smooth:
            bins = self.grid.bin_at(values)
            fine = self.mass[rows, bins] / self.grid.widths[bins] * tick
            # differences of the smaller tail probabilities are exact
            below = self.cdf(high) - np.where(low > 0, self.cdf(low), 0.0)
            above = np.where(low > 0, self.survival(low), 1.0) - self.survival(high)
            coarse = np.where(self.cdf(low) < 0.5, below, above)
        else:
            bins = self.grid.bin_of_code(values)
            num_ticks = self._num_ticks(bins, tick)
            fine = self.mass[rows, bins] / np.maximum(num_ticks, 1)
            nearest = np.rint((self.edges[1:] + self.edges[:-1]) / 2 / tick)  # tick of each bin
            wanted = np.rint(values / tick)
            start, end = (np.searchsorted(nearest, wanted, side=side) for side in ("left", "right"))
            coarse = self._sum_of_bins(start, end) + np.where(values == 0, self.zero, 0.0)
        is_fine = (values > 0) & (bins >= 0) & (tick < self.grid.widths[bins])
        densities = np.where(is_fine, fine, coarse) / tick
        return np.where((low < self.edges[-1]) & (values >= 0), densities, 0.0)

    def _density_of_positive(self, values: FloatArray) -> FloatArray:
        """(B,) density of positive intervals, conditional on being positive; NaN at 0."""
        bin_of = self.grid.bin_at if self.is_smooth else self.grid.bin_of_code
        bins, rows = bin_of(values), np.arange(len(self))
        positive = np.maximum(1 - self.zero, np.finfo(np.float64).tiny)
        densities = self.mass[rows, bins] / self.grid.widths[bins] / positive
        is_inside = (values < self.edges[-1]) if self.is_smooth else (bins >= 0)
        return np.where(values == 0, np.nan, np.where(is_inside & (values > 0), densities, 0.0))

    def nll(self, intervals: ArrayLike, *, tick: float) -> FloatArray:
        """(B,) negative logarithm of ``density``, in nats.

        It is infinite outside the grid, and NaN where there is no density.
        """
        with np.errstate(divide="ignore"):
            return -np.log(np.maximum(self.density(intervals, tick=tick), 0))

    def hazard(self, intervals: ArrayLike) -> FloatArray:
        """(B,) density over survival: the intensity of the process this long after an event."""
        values = np.asarray(intervals, dtype=np.float64)
        bins, survival = self.grid.bin_at(values), self.survival(values)
        density = self.mass[np.arange(len(self)), bins] / self.grid.widths[bins]
        return np.divide(density, survival, out=np.full(len(self), np.inf), where=survival > 0)

    def crps(self, intervals: ArrayLike) -> FloatArray:
        """(B,) continuous ranked probability score: the mean absolute error of a distribution.

        The integral over x of (F(x) - [x >= interval]) squared, exact for the piecewise linear F;
        Gneiting and Raftery 2007, equation 20.
        """
        values = np.asarray(intervals, dtype=np.float64)
        bins, share = self._locate(values)
        rows, widths = np.arange(len(self)), self.grid.widths
        cdf = self._cdf_at_edges
        # F(x) - [x >= interval] at the edges; linear within every bin but that of the interval
        edges: NDArray[np.int64] = np.arange(cdf.shape[1], dtype=np.int64)
        error: FloatArray = np.subtract(cdf, np.greater(edges, bins[:, None]))
        corners = np.append(widths, 0.0) + np.append(0.0, widths)
        linear = np.square(error) @ corners + (error[:, :-1] * error[:, 1:]) @ widths

        def square(start: FloatArray, end: FloatArray) -> FloatArray:
            return start * start + start * end + end * end

        low, high = error[rows, bins], error[rows, bins + 1]
        middle = low + share * self.mass[rows, bins]
        split = share * square(low, middle) + (1 - share) * square(middle - 1, high)
        in_bin = widths[bins] * (split - square(low, high))
        beyond = np.maximum(values - self.edges[-1], 0)
        return (linear + in_bin) / 3 + beyond

    def _first_bin_reaching(self, level: float) -> NDArray[np.int64]:
        """(B,) the first bin at whose end the cumulative probability reaches a level."""
        cdf = self._cdf_at_edges
        is_reached: NDArray[np.bool_] = np.greater_equal(cdf[:, 1:], level)
        # rounding may keep the last edge below a level of 1
        is_last: NDArray[np.bool_] = np.less(cdf[:, -2], level)
        bins: NDArray[np.int64] = np.asarray(is_reached.argmax(axis=1), dtype=np.int64)
        bins[is_last] = self.mass.shape[1] - 1
        return bins

    @cached_property
    def _cdf_at_edges(self) -> FloatArray:
        """(B, G + 1) probabilities of at most the edge, from ``zero`` to 1."""
        cdf = np.empty((len(self), len(self.edges)))
        cdf[:, 0] = self.zero
        np.cumsum(self.mass, axis=1, out=cdf[:, 1:])
        cdf[:, 1:] += self.zero[:, None]
        return np.minimum(cdf, 1.0)

    @cached_property
    def _survival_at_edges(self) -> FloatArray:
        """(B, G + 1) probabilities of more than the edge, summed from the last edge."""
        survival = np.zeros((len(self), len(self.edges)))
        survival[:, :-1] = np.cumsum(self.mass[:, ::-1], axis=1)[:, ::-1]
        return survival

    def _locate(self, values: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """(B,) the bin of each value, and the share of the bin below the value."""
        bins = self.grid.bin_at(values)
        share = (values - self.edges[bins]) / self.grid.widths[bins]
        return bins, np.clip(share, 0.0, 1.0)

    def _sum_of_bins(self, start: NDArray[np.integer], end: NDArray[np.integer]) -> FloatArray:
        """(B,) probability of the bins from ``start`` to before ``end``."""
        rows = np.arange(len(self))
        below, above = self._cdf_at_edges, self._survival_at_edges
        from_below = below[rows, end] - below[rows, start]
        return np.where(below[rows, start] < 0.5, from_below, above[rows, start] - above[rows, end])

    def _num_ticks(self, bins: NDArray[np.int64], tick: float) -> NDArray[np.int64]:
        """(B,) number of whole ticks with the code of each bin."""
        inside = np.maximum(bins, 1)
        first = np.ceil(self.edges[inside] / tick - _EDGE_TOLERANCE)
        last = np.floor(self.edges[inside + 1] / tick + _EDGE_TOLERANCE)
        first += self.grid.bin_of_code(first * tick) != inside
        last -= self.grid.bin_of_code(last * tick) != inside
        return (last - first + 1).astype(np.int64)
