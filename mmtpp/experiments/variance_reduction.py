"""STORM: a momentum corrected by the gradient of the same samples at the previous weights.

The estimate is ``d = g + momentum (d' - g')``: ``g`` is the gradient of a step's samples, ``g'``
the gradient of the same samples at the weights before the last update, and ``d'`` the previous
estimate. Gradients add up, so a second pass at the previous weights, with the loss multiplied by
``-momentum``, leaves ``g - momentum g'`` in DeepSpeed's gradient buffers.

Source: Cutkosky and Orabona, "Momentum-Based Variance Reduction in Non-Convex SGD", arXiv
    1905.10018.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from mmtpp.config.schema import OptimizerSection


def num_gradient_passes(optimizer: OptimizerSection) -> int:
    """Number of passes over the samples of a step: two with ``optimizer.variance_reduction``."""
    return 2 if optimizer.variance_reduction else 1


def update_corrected_momentum_(
    momentum: torch.Tensor, gradient: torch.Tensor, decay: float
) -> torch.Tensor:
    """Add a step's corrected gradient ``g - decay g'`` to the decayed momentum, in place."""
    return momentum.mul_(decay).add_(gradient)


class VarianceReduction:
    """Keeps the trained weights before the last update and corrects gradients with them.

    Args:
        parameters: Trained parameters by name, whole on every rank.
        momentum: Momentum of the optimiser.

    Attributes:
        previous_weights: Weights before the last update, by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, momentum: float) -> None:
        self._parameters = list(parameters.values())
        self._momentum = momentum
        self.previous_weights = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    def correct_gradients(self, accumulate_gradients: Callable[[float], object]) -> None:
        """Subtract the momentum times the gradients at the previous weights.

        Args:
            accumulate_gradients: Adds the gradients of the step's samples, times its argument, to
                the accumulated gradients.
        """
        self._swap_weights()
        try:
            accumulate_gradients(-self._momentum)
        finally:
            self._swap_weights()

    def record_weights(self) -> None:
        """Copy the current weights; called right before an update."""
        for parameter, previous in self._weight_pairs():
            previous.copy_(parameter.detach())

    @torch.no_grad()
    def _swap_weights(self) -> None:
        """Exchange current and previous weights, one tensor at a time."""
        for parameter, previous in self._weight_pairs():
            current = parameter.detach().clone()
            parameter.copy_(previous)
            previous.copy_(current)

    def _weight_pairs(self) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
        return zip(self._parameters, self.previous_weights.values(), strict=True)
