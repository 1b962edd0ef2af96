"""Forecasts of an expert on a grid: distributions of the interval, and of the type alone.

Axes: N events, M networks, K types, G bins of the grid, Q intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.expert.interval_density import LogNormals
from mmtpp.expert.network import ExpertNetwork
from mmtpp.expert.normal_mixtures import mean_cdf

NUM_QUANTILES = 6
"""Quantiles of the positive intervals over which the distribution of the type is averaged."""
OWN_FACTOR = 4
"""Bins of the grid that are one bin of the distributions of each network."""
_NODES, _SHARES = (
    torch.from_numpy(values / 2).float()
    for values in np.polynomial.legendre.leggauss(NUM_QUANTILES)
)
_ROWS_PER_PASS = 2**10

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GridForecasts:
    """Forecasts of N events on a grid.

    Attributes:
        networks: The M networks.
        hidden: (N, width) hidden states of each network.
        grid: The grid; half a tick is one of its edges.
        cdf: (N, G + 1) probability of at most each edge. The first column is the probability of a
            simultaneous event.
        own_edges: (E,) edges for the distributions of each network.
        own_cdfs: (N, E) probability of at most each of these edges by each network.
    """

    networks: tuple[ExpertNetwork, ...]
    hidden: tuple[torch.Tensor, ...]
    grid: IntervalGrid
    cdf: FloatArray
    own_edges: torch.Tensor
    own_cdfs: tuple[torch.Tensor, ...]

    @classmethod
    @torch.inference_mode()
    def compute(
        cls,
        networks: tuple[ExpertNetwork, ...],
        hidden: tuple[torch.Tensor, ...],
        densities: Sequence[LogNormals],
        grid: IntervalGrid,
        *,
        is_exact: bool,
    ) -> "GridForecasts":
        """Compute the cumulative probabilities at the edges.

        Intervals within half a tick of zero are simultaneous events, so their whole probability is
        that of zero, and no quantile lies between zero and half a tick.

        Args:
            networks: The networks.
            hidden: (N, width) hidden states of each network.
            densities: N distributions of the interval of each network.
            grid: The grid; an edge at half a tick is added.
            is_exact: Whether probabilities are as exact as float32 allows, or to 5e-5.
        """
        half = densities[0].scale.tick / 2
        if half and half < grid.edges[-1]:
            grid = replace(grid, edges=np.unique(np.append(grid.edges, half)))
        edges = torch.from_numpy(grid.edges.astype(np.float32))
        start = 0 if half else 1  # without a tick, only the atom is at most the edge 0
        positive = edges.clamp(min=half)[start:]
        own = torch.arange(0, len(positive), OWN_FACTOR)
        own = torch.cat([own, torch.tensor([len(positive) - 1])]).unique()
        mean, own_means = mean_cdf(
            [density.mixtures for density in densities],
            densities[0].scale.normalise(positive),
            own,
            is_exact=is_exact,
        )
        atoms = [density.atom[:, None] for density in densities]
        mean_atom = torch.stack(atoms).mean(0).numpy()
        cdf = np.empty((len(mean), len(edges)))
        cdf[:, :start] = mean_atom
        np.add(mean.numpy(), mean_atom, out=cdf[:, start:])
        own_cdfs = [
            torch.cat([atom.expand(-1, start), atom + values], 1)
            for atom, values in zip(atoms, own_means, strict=True)
        ]
        own_edges = torch.cat([edges[:start], positive[own]])
        return cls(networks, hidden, grid, cdf, own_edges, tuple(own_cdfs))

    def intervals(self) -> IntervalForecasts:
        """The distributions of the interval."""
        return IntervalForecasts.from_cdf(self.grid, self.cdf)

    @torch.inference_mode()
    def type_log_probabilities(self) -> FloatArray:
        """(N, K) log probability of the next type whenever the next event occurs."""
        parts = [
            self._type_probabilities(slice(start, start + _ROWS_PER_PASS))
            for start in range(0, max(1, len(self.cdf)), _ROWS_PER_PASS)
        ]
        probabilities = torch.cat(parts)
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log().numpy()

    def _type_probabilities(self, rows: slice) -> torch.Tensor:
        """(rows, K) float64 probabilities of the next type after some of the events."""
        total = torch.zeros((), dtype=torch.float64)
        number = len(self.networks)
        of_all = self._quantiles(torch.cat([cdf[rows] for cdf in self.own_cdfs]))
        parts = zip(*(values.tensor_split(number, 1) for values in of_all), strict=True)
        for network, hidden, (intervals, weights) in zip(
            self.networks, self.hidden, parts, strict=True
        ):
            total = total + network.mean_type_probabilities(hidden[rows], intervals, weights)
        return (total / total.sum(0)).T

    def _quantiles(self, cdf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(Q + 1, N) zero and quantiles of the positive intervals, and the probability of each.

        The quantiles are the nodes of the rule of Gauss and Legendre.
        """
        zero, positive = cdf[:, :1], cdf[:, -1:] - cdf[:, :1]
        levels = zero + positive * (_NODES + 0.5)
        edges = self.own_edges
        bins = (torch.searchsorted(cdf, levels, right=True) - 1).clamp(0, len(edges) - 2)
        low = cdf.gather(1, bins)
        mass = (cdf.gather(1, bins + 1) - low).clamp(min=torch.finfo(cdf.dtype).tiny)
        inside = edges[bins] + ((levels - low) / mass).clamp(0, 1) * edges.diff()[bins]
        weights = positive * _SHARES
        quantiles = torch.cat([torch.zeros_like(zero), inside], 1)
        return quantiles.T.contiguous(), torch.cat([zero, weights], 1).T.contiguous()
