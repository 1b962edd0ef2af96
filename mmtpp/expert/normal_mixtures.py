"""Mixtures of normal distributions: cumulative probabilities at many edges.

A mixture is smooth at the scale of its narrowest component. The integral of the spline through its
density, at nodes closer than that, is the cumulative probability. This takes fewer exponentials
than there are edges, and an exponential takes a third of the time of an error function.

Axes: N mixtures, K components, S nodes, G edges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mmtpp.core.forecasting.spline_integrals import spline_integrals

_SPACING = 0.7  # of nodes, in widths of the narrowest component
_MARGIN = 6  # nodes beyond the edges on each side, because a spline is least exact at its ends
_ROUNDED_TO = 8  # numbers of nodes, so that mixtures of similar widths share a rule
_LEAST_LOG = -80.0  # of a density; sums with denormal numbers take a hundred times longer
_CELLS_PER_PASS = 2**17  # of all components and values: they stay in the processor's caches


@dataclass(frozen=True, slots=True)
class NormalMixtures:
    """N mixtures of normal distributions.

    Attributes:
        weights: (N, K) weights of the components; their sum may be below 1.
        means: (N, K) means of the components.
        widths: (N, K) standard deviations of the components.
    """

    weights: torch.Tensor
    means: torch.Tensor
    widths: torch.Tensor

    def exact_cdf(self, edges: torch.Tensor) -> torch.Tensor:
        """(G, N) cumulative probabilities, by error functions."""
        weights = self.weights.T.contiguous() / 2
        # erf is faster than erfc, and no less exact but in the lower tail
        inverse, shift = self._line()
        parts = []
        for part in edges.split(self._values_per_pass):
            cells = torch.addcmul(shift, part[:, None, None], inverse)
            parts.append(cells.erf_().mul_(weights).sum(1) + weights.sum(0))
        return torch.cat(parts)

    def densities(self, values: torch.Tensor) -> torch.Tensor:
        """(values, N) densities."""
        heights = torch.log(self.weights / (math.sqrt(2 * math.pi) * self.widths)).T.contiguous()
        inverse, shift = self._line()
        parts = []
        for part in values.split(self._values_per_pass):
            cells = torch.addcmul(shift, part[:, None, None], inverse)
            torch.addcmul(heights, cells, cells, value=-1, out=cells)
            parts.append(cells.clamp_(min=_LEAST_LOG).exp_().sum(1))
        return torch.cat(parts)

    def _line(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(K, N) factor and summand from values to distances from the means, in widths times the
        root of 2.

        The mixtures are the last axis: along it nothing is broadcast, so all operations are those
        of vectors.
        """
        inverse = (math.sqrt(0.5) / self.widths).T.contiguous()
        return inverse, (-self.means).T.contiguous() * inverse

    @property
    def _values_per_pass(self) -> int:
        return max(1, _CELLS_PER_PASS // max(1, self.means.numel()))

    @property
    def spacing(self) -> float:
        """Distance of nodes whose spline has the integral of every mixture to 5e-5."""
        # narrower components need closer nodes, but less so if their weights are small; if all K
        # are at one place, their errors add up
        shares = (self.weights * self.weights.shape[1]).clamp(max=1.0)
        return _SPACING * float((self.widths * torch.exp(-shares.log() / 8)).min())


def mean_cdf(
    mixtures: Sequence[NormalMixtures],
    edges: torch.Tensor,
    own: torch.Tensor,
    *,
    is_exact: bool = False,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Cumulative probabilities of the mean of M models, and of each model at some of the edges.

    Args:
        mixtures: N mixtures of each model.
        edges: (G,) edges, not decreasing.
        own: (E,) indices of edges.
        is_exact: Whether error functions are used instead of splines. The splines' error of 5e-5
            hides smaller probabilities, such as those of long silences.

    Returns:
        mean_NG: (N, G) mean of the models' sums of weights times probabilities below each edge.
        own_cdfs: (N, E) those of each model.
    """
    rule = None
    if len(mixtures[0].means) and not is_exact:
        rule = _integration_rule(edges, min(mixture.spacing for mixture in mixtures))
    if rule is None:
        cdfs = [mixture.exact_cdf(edges).T for mixture in mixtures]
        return torch.stack(cdfs).mean(0), [cdf[:, own] for cdf in cdfs]
    starts = torch.stack([mixture.exact_cdf(edges[:1]).T for mixture in mixtures])
    densities = torch.stack([mixture.densities(rule.nodes) for mixture in mixtures])
    mean = torch.addmm(starts.mean(0), densities.mean(0).T, rule.integrals)
    some = rule.integrals[:, own]
    own_cdfs = [torch.addmm(start, d.T, some) for start, d in zip(starts, densities, strict=True)]
    return mean, own_cdfs


@dataclass(frozen=True, slots=True)
class _IntegrationRule:
    """Even nodes, and the integrals from the first edge to all edges.

    Attributes:
        nodes: (S,) nodes.
        integrals: (S, G) matrix from densities at the nodes to integrals.
    """

    nodes: torch.Tensor
    integrals: torch.Tensor


def _integration_rule(edges: torch.Tensor, spacing: float) -> _IntegrationRule | None:
    """The rule with nodes at most ``spacing`` apart; None if it has no fewer nodes than edges."""
    span = float(edges[-1] - edges[0]) if len(edges) else 0.0
    number = _ROUNDED_TO * math.ceil((span / spacing + 1) / _ROUNDED_TO)
    if not span or number + 2 * _MARGIN >= len(edges):
        return None
    return _built_rule(edges.double().numpy().tobytes(), number)


@lru_cache(maxsize=32)  # a rule takes milliseconds, and batches share it
def _built_rule(edges: bytes, number: int) -> _IntegrationRule:
    """The rule of edges, given by their bytes, with a number of nodes between them."""
    at = np.frombuffer(edges)
    spacing = (at[-1] - at[0]) / (number - 1)
    nodes = at[0] + spacing * np.arange(-_MARGIN, number + _MARGIN)
    integrals = np.ascontiguousarray(spline_integrals(nodes, at), dtype=np.float32)
    return _IntegrationRule(torch.from_numpy(nodes.astype(np.float32)), torch.from_numpy(integrals))
