"""Likelihood of an interval on a clock with ticks, for IntensityFree's mixture of log-normals.

A density is unbounded where many intervals are the same number of seconds: a narrow log-normal on
one second has a density of 60 and more, but no probability exceeds 1. The models of this project
give a probability to every tick of the clock. So does IntensityFree here, in training, validation
and test: the mass between half a tick before and half a tick after the interval.
"""

from typing import Any


def score_ticks(tick: float) -> None:
    """Let EasyTPP's log-normal mixtures score whole ticks, until this process ends.

    Their ``log_prob`` becomes the logarithm of the mean density over the tick of an interval, so it
    compares with densities in the same unit. The first tick is half a tick long, from 0.

    Args:
        tick: Tick of the clock, above 0, in the unit of the intervals.
    """
    import torch
    from easy_tpp.model import intensity_free  # pyright: ignore[reportMissingImports]

    smallest = 1e-6 * tick  # log(0) has no gradient

    def log_density(mixture: Any, intervals: torch.Tensor) -> torch.Tensor:
        number = torch.round(intervals.double() / tick)
        low = ((number - 0.5) * tick).clamp(min=0.0)
        high = (number + 0.5) * tick
        bounds = []
        for bound in (low.clamp(min=smallest), high):
            for transform in reversed(mixture.transforms):
                bound = transform.inv(bound)
            bounds.append(bound.unsqueeze(-1))
        normal = mixture.base_dist.component_distribution
        weights = mixture.base_dist.mixture_distribution.logits.log_softmax(-1)
        scores = [(bound - normal.loc.double()) / normal.scale.double() for bound in bounds]
        log_mass = torch.logsumexp(weights.double() + log_normal_mass(*scores), dim=-1)
        return (log_mass - (high - low).log()).to(intervals.dtype)

    intensity_free.LogNormalMixtureDistribution.log_prob = log_density


def log_normal_mass(low: Any, high: Any) -> Any:
    """Logarithm of the standard normal's mass between two bounds, exact in both tails.

    Args:
        low: Lower bounds, float64.
        high: Upper bounds, above the lower ones, float64.
    """
    import torch

    # the mass of [low, high] is that of [-high, -low], which is far from 1 when low is above 0
    is_above = low > 0
    low, high = torch.where(is_above, -high, low), torch.where(is_above, -low, high)
    log_below, log_up_to = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_up_to + torch.log(-torch.expm1(log_below - log_up_to))
