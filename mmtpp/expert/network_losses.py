"""Losses of networks on events, shared by the ranks of a training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.network import ExpertNetwork
from mmtpp.expert.next_events import NextEvents

_EVENTS_PER_PASS = 8192


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the ranks of a training.

    Attributes:
        rank: Rank of this process.
        num_ranks: Number of ranks.
        wrap: Makes a network average its gradients over the ranks.
        total: Sums a tensor over the ranks.
    """

    rank: int = 0
    num_ranks: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network
    total: Callable[[torch.Tensor], torch.Tensor] = lambda values: values


ALONE = Ranks()
"""The only rank of a training."""


@dataclass(frozen=True, slots=True)
class NetworkLosses:
    """Mean negative log-likelihoods of events.

    Attributes:
        interval_nll: Nats an event of the interval's density.
        type_nll: Nats an event of the type, given the interval.
        num_events: Number of events.
    """

    interval_nll: float
    type_nll: float
    num_events: int

    @property
    def nll(self) -> float:
        """Nats an event of interval and type."""
        return self.interval_nll + self.type_nll


@torch.inference_mode()
def mean_losses(
    networks: Sequence[ExpertNetwork], blocks: Iterable[NextEvents], ranks: Ranks = ALONE
) -> NetworkLosses:
    """Mean negative log-likelihood of events in the mean of the networks' distributions.

    Args:
        networks: Networks in evaluation mode.
        blocks: Events to score; the ranks share them.
        ranks: This process among the ranks.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for events in blocks:
        for index, part in enumerate(_passes(events)):
            if index % ranks.num_ranks == ranks.rank:
                interval_nll, type_nll = _losses(networks, part)
                sums[0] += interval_nll.sum()
                sums[1] += type_nll.sum()
                sums[2] += len(part)
    interval_nll, type_nll, count = ranks.total(sums).tolist()
    return NetworkLosses(interval_nll / count, type_nll / count, int(count))


@torch.inference_mode()
def event_losses(
    networks: Sequence[ExpertNetwork], events: NextEvents
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of each of N events in the mean of the networks' distributions.

    Args:
        networks: Networks in evaluation mode.
        events: Events to score.

    Returns:
        interval_nll_N: (N,) float64 nats of the interval's density.
        type_nll_N: (N,) float64 nats of the type, given the interval.
    """
    parts = [_losses(networks, part) for part in _passes(events)]
    interval_nll, type_nll = zip(*parts, strict=True)
    return torch.cat(interval_nll), torch.cat(type_nll)


def _losses(
    networks: Sequence[ExpertNetwork], events: NextEvents
) -> tuple[torch.Tensor, torch.Tensor]:
    forecasts = ExpertForecasts.after(networks, events.inputs)
    log_density, log_types = forecasts.log_likelihoods(events.next_intervals)
    return -log_density, -log_types.gather(1, events.next_types[:, None])[:, 0]


def _passes(events: NextEvents) -> Iterator[NextEvents]:
    for start in range(0, len(events), _EVENTS_PER_PASS):
        yield events.take(slice(start, start + _EVENTS_PER_PASS))
