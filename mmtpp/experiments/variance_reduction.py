"""STORM: a momentum corrected by the gradient of the same samples at the previous weights.

The estimate is ``d = g + momentum (d' - g')``: ``g`` is the gradient of a step's samples, ``g'``
the gradient of the same samples at the weights before the last update, and ``d'`` the previous
estimate. Gradients add up, so a second pass at the previous weights, with the loss multiplied by
``-momentum``, leaves ``g - momentum g'`` in DeepSpeed's gradient buffers.

Source: Cutkosky and Orabona, "Momentum-Based Variance Reduction in Non-Convex SGD", arXiv
    1905.10018.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mmtpp.config.schema import Optimizer as OptimizerSettings


@dataclass(frozen=True, slots=True)
class GradientPass:
    """One forward and backward pass over all samples of a step.

    Attributes:
        factor: Factor of this pass's gradient in the gradient of the step.
        at_previous_weights: Whether the pass uses the weights before the last update.
    """

    factor: float
    at_previous_weights: bool


def gradient_passes(optimizer: OptimizerSettings) -> tuple[GradientPass, ...]:
    """The passes of a step: one, or two with ``optimizer.variance_reduction``."""
    current = GradientPass(1.0, at_previous_weights=False)
    if not optimizer.variance_reduction:
        return (current,)
    return (current, GradientPass(-optimizer.momentum, at_previous_weights=True))


def update_corrected_momentum_(
    momentum: torch.Tensor, gradient: torch.Tensor, decay: float
) -> torch.Tensor:
    """Add a step's corrected gradient ``g - decay g'`` to the decayed momentum, in place."""
    return momentum.mul_(decay).add_(gradient)


class PreviousWeights:
    """A copy of the trained weights before the last update.

    Args:
        parameters: Trained parameters by name, whole on every rank.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = list(parameters.values())
        self.tensors = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange current and previous weights, one tensor at a time."""
        for parameter, previous in zip(self._parameters, self.tensors.values(), strict=True):
            current = parameter.detach().clone()
            parameter.copy_(previous)
            previous.copy_(current)

    def record(self) -> None:
        """Copy the current weights; called right before an update."""
        for parameter, previous in zip(self._parameters, self.tensors.values(), strict=True):
            previous.copy_(parameter.detach())
