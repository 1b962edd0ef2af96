"""The state of an expert's training: its progress, and everything of a network that is trained."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from mmtpp.expert.network import ExpertNetwork

_AVERAGED_STEPS = 200
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# checkpoints have this key since their first version
_RECORDED_AS = {"validations_since_best": "worse"}

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class FitProgress:
    """How far the training is; with the tensors of ``ExpertFit.tensors`` the whole state.

    Attributes:
        network: Index of the network that is trained.
        step: Number of its steps.
        steps_before: Number of steps of the finished networks.
        best_nll: NLL of its best validation, in nats per event; None before the first one.
        validations_since_best: Number of validations since the best one.
        finished_nll: Best NLL of the finished networks.
    """

    network: int = 0
    step: int = 0
    steps_before: int = 0
    best_nll: float | None = None
    validations_since_best: int = 0
    finished_nll: list[float | None] = field(default_factory=list)

    def as_record(self) -> dict[str, Any]:
        """The progress as checkpoints record it."""
        return {_RECORDED_AS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "FitProgress":
        """The progress in a checkpoint.

        Args:
            record: Result of ``as_record``.
        """
        names = {key: name for name, key in _RECORDED_AS.items()}
        return cls(**{names.get(key, key): value for key, value in record.items()})


class NetworkState:
    """A network that is trained, with its optimiser, its averaged weights and the best ones.

    Args:
        network: The network at its start.
        learning_rate: Largest learning rate of AdamW.
        weight_decay: Decoupled weight decay.

    Attributes:
        network: The network.
        averaged: The network with the moving average of the weights, which is validated.
        best: Averaged weights of the best validation; at first, those of the start.
        optimizer: The optimiser of the network.
    """

    def __init__(
        self, network: ExpertNetwork, *, learning_rate: float, weight_decay: float
    ) -> None:
        self.network = network
        self.averaged = deepcopy(network).eval()
        self.keep_averaged()
        self.optimizer = torch.optim.AdamW(
            (parameter for _, parameter in self._trained_parameters()),
            lr=learning_rate,
            weight_decay=weight_decay,
            betas=(0.9, 0.95),
            fused=True,
        )

    def keep_averaged(self) -> None:
        """Make the averaged weights the best ones."""
        weights = self.averaged.state_dict()
        self.best: Tensors = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def update_average(self, step: int) -> None:
        """Add the present weights to the moving average.

        Args:
            step: Number of steps of the network.
        """
        weight = 1 / min(_AVERAGED_STEPS, step)
        with torch.no_grad():
            for average, parameter in zip(
                self.averaged.parameters(), self.network.parameters(), strict=True
            ):
                average.lerp_(parameter, weight)

    def tensors(self) -> Tensors:
        """All weights and the moments of the optimiser, by name."""
        parts = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "best": self.best,
        }
        state = {
            f"{part}.{name}": tensor
            for part, weights in parts.items()
            for name, tensor in weights.items()
        }
        names = [name for name, _ in self._trained_parameters()]
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"{key}.{names[index]}": value for key, value in moments.items()}
        return state

    def restore(self, tensors: Tensors) -> None:
        """Continue from a state.

        Args:
            tensors: Result of ``tensors``; other names are ignored.
        """
        self.network.load_state_dict(_part(tensors, "network"))
        self.averaged.load_state_dict(_part(tensors, "averaged"))
        self.best = _part(tensors, "best")
        names = [name for name, _ in self._trained_parameters()]
        state = self.optimizer.state_dict()
        state["state"] = {
            index: {key: tensors[f"{key}.{name}"] for key in _MOMENTS}
            for index, name in enumerate(names)
            if f"step.{name}" in tensors
        }
        self.optimizer.load_state_dict(state)

    def _trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that are trained, with their names."""
        named = self.network.named_parameters()
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]


def tensors_of_finished(networks: Sequence[Tensors]) -> Tensors:
    """The weights of finished networks, by the names of a checkpoint.

    Args:
        networks: Weights of each network.
    """
    return {
        f"finished.{index}.{name}": tensor
        for index, weights in enumerate(networks)
        for name, tensor in weights.items()
    }


def read_finished(tensors: Tensors, number: int) -> list[Tensors]:
    """The weights of finished networks in a checkpoint.

    Args:
        tensors: Tensors of the checkpoint.
        number: Number of finished networks.
    """
    return [_part(tensors, f"finished.{index}") for index in range(number)]


def _part(tensors: Tensors, name: str) -> Tensors:
    """The tensors below a name."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
