"""Forecasts of an expert: distributions of the next interval and of the next type.

Axes: N events, K types, G bins of a grid, Q quantiles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.gate import IntervalLikelihoods
from mmtpp.core.forecasting.interval_forecasts import (
    IntervalForecasts,
    IntervalGrid,
    IntervalRange,
)
from mmtpp.expert.interval_density import LogNormals
from mmtpp.expert.network import ExpertNetwork

NUM_QUANTILES = 16
"""Quantiles of the interval over which the distribution of the type is averaged."""
GRID_FACTOR = 8
"""Bins of the grid of time codes that are one bin of an expert's grid: 4 % wide instead of
0.5 %. Densities of true intervals do not depend on the grid."""
_TINY = 1e-12
_ROWS_PER_PASS = 2**10  # times the quantiles
_CELLS_PER_PASS = 2**20  # cumulative probabilities of all components and edges

FloatArray = NDArray[np.float64]


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
    def after(
        cls,
        networks: Sequence[ExpertNetwork],
        rows: torch.Tensor,
        types: torch.Tensor,
        words: torch.Tensor,
        images: torch.Tensor | None = None,
    ) -> "ExpertForecasts":
        """Forecast what follows events.

        Args:
            networks: Trained networks.
            rows: (N, P) memory after each event.
            types: (N,) index of the type of each event.
            words: (N, MAX_WORDS) words of the text of each event; (N, 0) for networks that do not
                read words.
            images: (N, IMAGE_VALUES) values of the image of each event; None for networks that do
                not read images.
        """
        hidden = tuple(network.hidden(rows, types, words, images) for network in networks)
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

    def interval_likelihoods(self, intervals: torch.Tensor) -> IntervalLikelihoods:
        """Likelihoods of the true intervals.

        Args:
            intervals: (N,) intervals in the source's unit, whole numbers of ticks; NaN if unknown.
        """
        tick = self.tick
        log_density = self.log_density(intervals).numpy()
        of_zero = np.exp(self.log_density(torch.zeros_like(intervals)).numpy())
        if tick:
            return IntervalLikelihoods(-log_density, of_zero * tick, tick)
        atom = np.minimum(of_zero, 1 - _TINY)
        nll = np.where((intervals > 0).numpy(), np.log1p(-atom) - log_density, np.nan)
        return IntervalLikelihoods(nll, atom, tick)

    @torch.inference_mode()
    def type_log_probabilities(self, intervals: torch.Tensor) -> torch.Tensor:
        """(N, K) float64 log probability of the next type, given the next interval.

        A network counts in proportion to its density at the interval, so interval and type together
        have the mean of the networks' joint distributions.
        """
        weights = self._log_densities(intervals).log_softmax(0)
        types = torch.stack(
            [
                network.type_log_probabilities(hidden, intervals).double()
                for network, hidden in zip(self.networks, self.hidden, strict=True)
            ]
        )
        return (weights[..., None] + types).logsumexp(0)

    @torch.inference_mode()
    def marginal_type_log_probabilities(self, intervals: IntervalForecasts) -> FloatArray:
        """(N, K) log probability of the next type whenever the next event occurs.

        Args:
            intervals: The distributions of the interval; the mean is over their quantiles.
        """
        levels = [(index + 0.5) / NUM_QUANTILES for index in range(NUM_QUANTILES)]
        quantiles = torch.from_numpy(intervals.quantiles(levels).astype(np.float32))
        # at once for some of the rows: passes over single quantiles cost more than their products
        parts = []
        for start in range(0, len(self), _ROWS_PER_PASS):
            columns = quantiles[start : start + _ROWS_PER_PASS]
            rows = torch.arange(start, start + len(columns)).repeat_interleave(NUM_QUANTILES)
            types = self.select(rows).type_log_probabilities(columns.flatten())
            parts.append(types.unflatten(0, columns.shape).logsumexp(1))
        return torch.cat(parts).log_softmax(-1).numpy()

    @torch.inference_mode()
    def interval_forecasts(self, grid: IntervalGrid) -> IntervalForecasts:
        """The distributions of the interval on a grid.

        Intervals within half a tick of zero are simultaneous events, so their whole probability is
        that of zero, and no quantile lies between zero and half a tick.

        Args:
            grid: The grid; an edge at half a tick is added.
        """
        half = self.tick / 2
        if half and half < grid.edges[-1]:
            grid = replace(grid, edges=np.unique(np.append(grid.edges, half)))
        edges = torch.from_numpy(np.maximum(grid.edges, half).astype(np.float32))
        size = sum(density.means.shape[1] for density in self.densities) * len(edges)
        step = max(1, _CELLS_PER_PASS // size)
        parts = [
            torch.stack(
                [
                    density.select(slice(start, start + step)).cdf_at(edges)
                    for density in self.densities
                ]
            ).mean(0)
            for start in range(0, len(self), step)
        ]
        cdf = torch.cat(parts).double().numpy()
        atoms = [density.log_weights[:, -1].double().exp().numpy() for density in self.densities]
        zero = cdf[:, 0] if half else np.mean(atoms, axis=0)
        mass = np.maximum(np.diff(cdf, axis=1), 0.0)  # float32 may round a difference below 0
        inside = zero + mass.sum(axis=1)
        return IntervalForecasts(
            grid, zero / inside, mass / inside[:, None], 1 - inside, is_smooth=True
        )

    @torch.inference_mode()
    def sample_intervals(self, rng: np.random.Generator) -> FloatArray:
        """(N,) one interval from each distribution, not rounded to ticks."""
        size = len(self)
        of_network = np.stack([density.sample(rng) for density in self.densities])
        return of_network[rng.integers(len(self.densities), size=size), np.arange(size)]

    def _log_densities(self, intervals: torch.Tensor) -> torch.Tensor:
        """(networks, N) float64 log densities of each network."""
        return torch.stack([density.log_density(intervals).double() for density in self.densities])
