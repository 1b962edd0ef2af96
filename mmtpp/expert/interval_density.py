"""Distributions of the next interval: log-normal components and an atom at zero.

An interval is a whole number of ticks of the clock. Its probability is that of its tick, so the
likelihood is exact for short intervals and for simultaneous events, where a density is not.

Axes: N intervals, K components.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import softplus

from mmtpp.core.forecasting.futures import RandomNumbers
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.expert.normal_mixtures import NormalMixtures

MIN_WIDTH = 0.02  # of a component, in standard deviations of the training intervals' logarithms
_FINE_TICKS = 100  # longer intervals have about the same density within a tick
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class LogNormals:
    """Distributions of intervals, one per row.

    The logarithm of an interval, normalised by the memory, is a mixture of normal distributions.

    Attributes:
        log_weights: (N, K + 1) logarithms of the weights, the atom at zero last.
        means: (N, K) means of the components.
        widths: (N, K) standard deviations of the components.
        scale: The normalisation of intervals.
    """

    log_weights: torch.Tensor
    means: torch.Tensor
    widths: torch.Tensor
    scale: "IntervalScale"

    def log_density(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N,) logarithm of the probability of the interval's tick, divided by the tick's width.

        Times without a clock have a density where the interval is positive, and the probability of
        the atom where it is zero.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks.
        """
        scale = self.scale
        if not scale.tick:
            is_zero = intervals <= 0
            positive = torch.where(is_zero, scale.smallest, intervals)
            return torch.where(is_zero, self.log_weights[:, -1], self._point_density(positive))
        is_fine = intervals < _FINE_TICKS * scale.tick
        fine, coarse = self.select(is_fine), self.select(~is_fine)
        of_tick = fine._tick_probability(intervals[is_fine])
        result = torch.empty_like(intervals)
        result = result.masked_scatter(is_fine, torch.log(of_tick) - math.log(scale.tick))
        return result.masked_scatter(~is_fine, coarse._point_density(intervals[~is_fine]))

    @property
    def mixtures(self) -> NormalMixtures:
        """Mixtures of the normalised logarithm; without the atom."""
        return NormalMixtures(self.log_weights[:, :-1].exp(), self.means, self.widths)

    @property
    def atom(self) -> torch.Tensor:
        """(N,) probability of an interval of exactly zero."""
        return self.log_weights[:, -1].exp()

    def cdf_of_tick(self, intervals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities at both ends of the ticks of (N,) intervals.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks.

        Returns:
            low_N: (N,) probability of an interval below the tick.
            high_N: (N,) probability of an interval up to the end of the tick.
        """
        half = self.scale.tick / 2
        is_zero = intervals <= half / 2
        atom = self.atom

        def below(edges: torch.Tensor) -> torch.Tensor:
            standard = self._standardise(edges)
            weights = self.log_weights[:, :-1].exp()
            return atom + (weights * _normal_cdf(standard)).sum(-1)

        low = torch.where(is_zero, 0.0, below(intervals - half))
        high = below(intervals + half)
        return low, high if half else torch.where(is_zero, atom, high)

    def sample(self, rng: RandomNumbers) -> NDArray[np.float64]:
        """(N,) one interval from each distribution, not rounded to ticks."""
        weights = self.log_weights.double().exp().numpy()
        cumulative = np.cumsum(weights, axis=1)
        size, last = len(weights), weights.shape[1] - 1
        draws = rng.random(size)[:, None] * cumulative[:, -1:]
        component = np.minimum((cumulative <= draws).sum(axis=1), last)
        rows, inside = np.arange(size), np.minimum(component, last - 1)
        means, widths = self.means.double().numpy(), self.widths.double().numpy()
        z = means[rows, inside] + widths[rows, inside] * rng.standard_normal(size)
        intervals = np.exp(z * self.scale.log_spread + self.scale.log_mean)
        return np.where(component == last, 0.0, intervals)

    def select(self, rows: torch.Tensor | slice) -> "LogNormals":
        """The distributions of some rows."""
        return LogNormals(self.log_weights[rows], self.means[rows], self.widths[rows], self.scale)

    def _standardise(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N, K) distances of (N,) intervals from the means, in widths of the components."""
        return (self.scale.normalise(intervals)[:, None] - self.means) / self.widths

    def _point_density(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N,) log density of positive intervals."""
        standard = self._standardise(intervals)
        log_pdf = -0.5 * standard**2 - torch.log(self.widths) - 0.5 * math.log(2 * math.pi)
        log_jacobian = -math.log(self.scale.log_spread) - torch.log(intervals)
        return torch.logsumexp(self.log_weights[:, :-1] + log_pdf, -1) + log_jacobian

    def _tick_probability(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N,) probability of the ticks around intervals, from the smaller tails."""
        half = self.scale.tick / 2
        is_zero = intervals < half / 2
        high = self._standardise(intervals + half)
        low = self._standardise(intervals - half)
        low = torch.where(is_zero[:, None], -torch.inf, low)
        in_upper = low > 0
        smaller = _normal_cdf(torch.where(in_upper, -low, high))
        larger = _normal_cdf(torch.where(in_upper, -high, low))
        inside = (self.log_weights[:, :-1].exp() * (smaller - larger)).sum(-1)
        atom = torch.where(is_zero, self.atom, 0.0)
        return torch.clamp(inside + atom, min=_TINY)


@dataclass(frozen=True, slots=True)
class IntervalScale:
    """Normalisation of intervals.

    Attributes:
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        smallest: Shorter positive intervals count as this long.
        log_mean: Mean of the training intervals' logarithms.
        log_spread: Standard deviation of the training intervals' logarithms.
    """

    tick: float
    smallest: float
    log_mean: float
    log_spread: float

    @classmethod
    def from_memory(cls, settings: MemorySettings, *, tick: float) -> "IntervalScale":
        """The normalisation that the memory uses."""
        return cls(tick, settings.smallest_interval, settings.log_mean, settings.log_spread)

    def normalise(self, intervals: torch.Tensor) -> torch.Tensor:
        """Normalised logarithms of intervals."""
        return (torch.log(torch.clamp(intervals, min=_TINY)) - self.log_mean) / self.log_spread


class LogNormalHead(nn.Module):
    """Maps hidden states to distributions of the next interval.

    Args:
        width: Width of the hidden states.
        num_components: Number of log-normal components.
        scale: Normalisation of intervals.
    """

    def __init__(self, width: int, num_components: int, scale: IntervalScale) -> None:
        super().__init__()
        self.scale, self.num_components = scale, num_components
        self.means = nn.Buffer(torch.zeros(num_components))
        self.raw_widths = nn.Buffer(torch.zeros(num_components))
        self.linear = nn.Linear(width, 3 * num_components + 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def start_from(self, log_intervals: NDArray[np.float64]) -> None:
        """Place the components of a new head at the quantiles of intervals.

        Args:
            log_intervals: Normalised logarithms of intervals, as the memory computes them.
        """
        levels = (np.arange(self.num_components) + 0.5) / self.num_components
        # components of equal quantiles are moved apart
        apart = np.linspace(-0.05, 0.05, self.num_components)
        means = np.quantile(log_intervals, levels) + apart
        widths = np.clip(np.gradient(means) * 1.2, 0.05, 3.0)
        self.means.copy_(torch.from_numpy(means))
        self.raw_widths.copy_(torch.from_numpy(np.log(np.expm1(widths))))

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logarithms of weights, means and widths, ``LogNormals``, for (N, width) hidden states.

        The result is a plain tuple, because ZeRO-3 searches the output of a module for tensors.
        """
        sizes = [self.num_components + 1, self.num_components, self.num_components]
        values = self.linear(hidden).float()  # densities need float32
        weights, means, widths = values.split(sizes, -1)
        return (
            weights.log_softmax(-1),
            self.means + means,
            softplus(self.raw_widths + widths) + MIN_WIDTH,
        )

    def distributions(self, hidden: torch.Tensor) -> LogNormals:
        """The distributions of the next intervals, one for each of (N, width) hidden states."""
        log_weights, means, widths = self(hidden)
        return LogNormals(log_weights, means, widths, self.scale)


def _normal_cdf(standard: torch.Tensor) -> torch.Tensor:
    """The normal distribution function, exact in the lower tail too.

    ``torch.special.ndtr`` computes one value at a time, ``erfc`` a vector of values.
    """
    return torch.erfc(-math.sqrt(0.5) * standard) / 2
