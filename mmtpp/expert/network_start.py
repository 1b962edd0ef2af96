"""Where the training of a network starts: at random weights, or at those of a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mmtpp.core.errors import ConfigError
from mmtpp.expert.interval_density import IntervalScale
from mmtpp.expert.network import ExpertNetwork, NetworkSize
from mmtpp.expert.prompts import PROMPTS
from mmtpp.expert.training_statistics import TrainingStatistics


class NetworkStart(Protocol):
    """Builds the networks that a training starts from."""

    @property
    def size(self) -> NetworkSize:
        """Size of the networks."""
        ...

    @property
    def is_trained(self) -> bool:
        """Whether the networks are trained, so that a training may leave them as they are."""
        ...

    @property
    def rate_setting(self) -> str:
        """Path of the setting that is the learning rate, for errors."""
        ...

    def build(self, index: int, *, dropout: float, memory_dropout: float) -> ExpertNetwork:
        """The network number ``index``, with gradients for the weights that are trained."""
        ...


@dataclass(frozen=True, slots=True)
class RandomStart:
    """Random weights, and the distribution of the training intervals.

    Attributes:
        size: Size of the networks.
        scale: Normalisation of intervals.
        statistics: Statistics of the training events.
    """

    size: NetworkSize
    scale: IntervalScale
    statistics: TrainingStatistics

    @property
    def is_trained(self) -> bool:
        """Whether the networks are trained: they are not."""
        return False

    @property
    def rate_setting(self) -> str:
        """Path of the setting that is the learning rate."""
        return "expert.learning_rate"

    def build(self, index: int, *, dropout: float, memory_dropout: float) -> ExpertNetwork:
        """A new network; the present state of torch's generator decides its weights."""
        network = ExpertNetwork(
            self.size, self.scale, dropout=dropout, memory_dropout=memory_dropout
        )
        network.start_from(self.statistics)
        return network


@dataclass(frozen=True, slots=True)
class TrainedStart:
    """The networks of a trained expert.

    Attributes:
        networks: The networks, all of the same size.
        num_prompts: Number of prompts; 0 trains the weights of the networks. Otherwise only prompts
            are trained; networks without prompts get new ones.
    """

    networks: Sequence[ExpertNetwork]
    num_prompts: int = 0

    @property
    def size(self) -> NetworkSize:
        """Size of the networks, with prompts.

        Raises:
            ConfigError: The networks have another number of prompts.
        """
        size = self.networks[0].size
        if not self.num_prompts:
            return size
        if size.num_prompts not in (0, self.num_prompts):
            raise ConfigError(
                f"the expert has {size.num_prompts} prompts",
                cause="the number of prompts is chosen when they are first trained",
                setting=f"update.num_prompts = {self.num_prompts}",
            )
        return replace(size, num_prompts=self.num_prompts)

    @property
    def is_trained(self) -> bool:
        """Whether the networks are trained: they are."""
        return True

    @property
    def rate_setting(self) -> str:
        """Path of the setting that is the learning rate."""
        return "update.prompt_learning_rate" if self.num_prompts else "update.learning_rate"

    def build(self, index: int, *, dropout: float, memory_dropout: float) -> ExpertNetwork:
        """A copy of a network, with its prompts or with new ones."""
        source = self.networks[index]
        network = ExpertNetwork(
            self.size, source.scale, dropout=dropout, memory_dropout=memory_dropout
        )
        weights = source.state_dict()
        new = {name for name in network.state_dict() if name not in weights}
        assert all(name.startswith(PROMPTS) for name in new)
        network.load_state_dict(weights, strict=False)
        if self.num_prompts:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith(PROMPTS))
        return network
