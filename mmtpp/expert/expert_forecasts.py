"""Forecasts of an expert: distributions of the next interval and of the next type.

Axes: N events, K types.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.futures import RandomNumbers
from mmtpp.core.forecasting.gate import IntervalLikelihoods
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid, IntervalRange
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.grid_forecasts import GridForecasts
from mmtpp.expert.interval_density import LogNormals
from mmtpp.expert.network import ExpertNetwork

GRID_FACTOR = 8
"""Bins of the grid of time codes that are one bin of an expert's grid: 4 % wide instead of
0.5 %. Densities of true intervals do not depend on the grid."""
_TINY = 1e-12

FloatArray = NDArray[np.float64]


@lru_cache(maxsize=16)  # it takes longer than a forecast on it
def density_grid(interval_range: IntervalRange) -> IntervalGrid:
    """Grid of the forecasts of an expert or of a soft model, from the range of the intervals."""
    return interval_range.grid(num_bytes=2).coarsened(GRID_FACTOR)


@dataclass(frozen=True, slots=True)
class ExpertForecasts:
    """Forecasts after N events: the mean of the networks' distributions.

    Attributes:
        networks: The networks.
        hidden: (N, width) hidden states of each network.
        densities: Distributions of the interval of each network.
    """

    networks: tuple[ExpertNetwork, ...]
    hidden: tuple[torch.Tensor, ...]
    densities: tuple[LogNormals, ...]

    @classmethod
    @torch.inference_mode()
    def after(cls, networks: Sequence[ExpertNetwork], inputs: EventInputs) -> "ExpertForecasts":
        """Forecast what follows events.

        Args:
            networks: Trained networks.
            inputs: Memory after N events, and the events.

        Raises:
            ValueError: The networks read words or images, and the events have none, or vice versa.
        """
        hidden = tuple(network.hidden(inputs) for network in networks)
        densities = tuple(
            network.intervals(states) for network, states in zip(networks, hidden, strict=True)
        )
        return cls(tuple(networks), hidden, densities)

    def __len__(self) -> int:
        return len(self.hidden[0])

    @property
    def tick(self) -> float:
        """Tick of the clock, in the source's unit; 0 if the times have no tick."""
        return self.densities[0].scale.tick

    def select(self, rows: torch.Tensor | slice) -> "ExpertForecasts":
        """The forecasts after some of the events."""
        return ExpertForecasts(
            self.networks,
            tuple(states[rows] for states in self.hidden),
            tuple(density.select(rows) for density in self.densities),
        )

    @torch.inference_mode()
    def log_density(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N,) float64 logarithm of the joint density of the networks at intervals.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks.
        """
        return self._log_densities(intervals).logsumexp(0) - math.log(len(self.networks))

    @torch.inference_mode()
    def cdf_of_tick(self, intervals: torch.Tensor) -> tuple[FloatArray, FloatArray]:
        """Probabilities at both ends of the ticks of intervals.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks.

        Returns:
            low_N: (N,) probability of an interval below the tick.
            high_N: (N,) probability of an interval up to the end of the tick.
        """
        ends = [torch.stack(density.cdf_of_tick(intervals)) for density in self.densities]
        low, high = torch.stack(ends).double().mean(0).numpy()
        return low, high

    def interval_likelihoods(
        self, intervals: torch.Tensor, log_density: torch.Tensor
    ) -> IntervalLikelihoods:
        """Likelihoods of the true intervals.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks; NaN if unknown.
            log_density: (N,) ``log_density`` at the intervals.
        """
        nll = self.interval_nll(intervals, log_density)
        simultaneous = self._atom()
        if self.tick:
            _, simultaneous = self.cdf_of_tick(torch.zeros_like(intervals))
        return IntervalLikelihoods(nll, simultaneous, self.tick)

    def interval_nll(self, intervals: torch.Tensor, log_density: torch.Tensor) -> FloatArray:
        """(N,) nats of the density of the true intervals, as in ``IntervalLikelihoods``.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks; NaN if unknown.
            log_density: (N,) ``log_density`` at the intervals.
        """
        if self.tick:
            return -log_density.numpy()
        nll = np.log1p(-self._atom()) - log_density.numpy()
        return np.where((intervals > 0).numpy(), nll, np.nan)

    def _atom(self) -> FloatArray:
        """(N,) probability of an interval of exactly zero, below 1."""
        atoms = torch.stack([density.atom for density in self.densities])
        return np.minimum(atoms.double().mean(0).numpy(), 1 - _TINY)

    def type_log_probabilities(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N, K) float64 log probability of the next type, given the next interval."""
        return self.log_likelihoods(intervals)[1]

    @torch.inference_mode()
    def log_likelihoods(self, intervals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-likelihoods of the next interval and type.

        A network counts in proportion to its density at the interval, so interval and type together
        have the mean of the networks' joint distributions.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks.

        Returns:
            log_density_N: (N,) float64 logarithm of the joint density of the networks.
            log_types_NK: (N, K) float64 log probability of the next type, given the interval.
        """
        log_densities = self._log_densities(intervals)
        types = [
            network.type_log_probabilities(hidden, intervals).double()
            for network, hidden in zip(self.networks, self.hidden, strict=True)
        ]
        joint = torch.stack(types) + log_densities[..., None]
        log_density = log_densities.logsumexp(0)
        log_types = joint.logsumexp(0) - log_density[:, None]
        return log_density - math.log(len(self.networks)), log_types

    def on_grid(self, grid: IntervalGrid, *, is_exact: bool = False) -> GridForecasts:
        """Forecasts on a grid: the distributions of the interval, and of the type alone.

        Args:
            grid: The grid.
            is_exact: Whether probabilities are as exact as float32 allows, for survival and hazards
                after long silences; otherwise they are exact to 5e-5, in less time.
        """
        return GridForecasts.compute(
            self.networks, self.hidden, self.densities, grid, is_exact=is_exact
        )

    @torch.inference_mode()
    def sample_intervals(self, rng: RandomNumbers) -> FloatArray:
        """(N,) one interval from each distribution, not rounded to ticks."""
        size = len(self)
        of_network = np.stack([density.sample(rng) for density in self.densities])
        return of_network[rng.integers(len(self.densities), size=size), np.arange(size)]

    def _log_densities(self, intervals: torch.Tensor) -> torch.Tensor:
        """(networks, N) float64 log densities of each network."""
        return torch.stack([density.log_density(intervals).double() for density in self.densities])
