"""One optimiser for every rule of ``optimizer.name``, under any ZeRO stage the rule allows.

AdamW uses torch's kernel. Muon is our own: torch's Muon needs whole matrices, but ZeRO gives an
optimiser flat pieces. DeepSpeed's Muon orthogonalises before it clips, so
``max_grad_norm`` shortens all steps by the number of matrices, and another number of ranks cannot
read back its momentum. Here gradients are clipped first, the momentum is sharded like AdamW's
moments, and a matrix is gathered only to orthogonalise it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from mmtpp.compat.deepspeed_hooks import full_shape, has_fragment_mapping
from mmtpp.config.schema import OptimizerPrecisionSection, OptimizerSection
from mmtpp.config.update_rules import Average, Direction
from mmtpp.core.seeds import seed_from
from mmtpp.experiments.rounding import round_
from mmtpp.experiments.steepest_descent import rms_scale, steepest_direction
from mmtpp.experiments.variance_reduction import update_corrected_momentum_
from mmtpp.train.optimizer.gathered_matrices import apply_to_gathered_matrices
from mmtpp.train.optimizer.muon import orthogonal_rms_scale, orthogonalized
from mmtpp.train.optimizer.state_codec import CHUNK, StateCodec

ADAMW, DESCENT = "adamw", "descent"
MOMENTS, MOMENTUM = ("exp_avg", "exp_avg_sq"), ("momentum_buffer",)
# names, PEFT's and the model's, of parameters with one row per token
_TOKEN_ROWS = ("embed_tokens", "lm_head", "trainable_tokens")


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon may update a parameter.

    Hidden matrices map vectors to vectors; LoRA's factors are included.
    """
    return len(full_shape(parameter)) == 2 and not any(part in name for part in _TOKEN_ROWS)


def update_rule(settings: OptimizerSection, name: str, parameter: nn.Parameter) -> str:
    """The rule that updates a parameter: ``adamw`` or ``descent``."""
    rule = settings.rule
    if rule.direction is Direction.ADAM:
        return ADAMW
    is_excluded = rule.only_hidden_matrices and not is_hidden_matrix(name, parameter)
    return ADAMW if is_excluded else DESCENT


def state_names(settings: OptimizerSection, rule: str) -> tuple[str, ...]:
    """Names of the states of a parameter with a rule."""
    if rule == ADAMW:
        return MOMENTS
    return MOMENTUM if settings.has_momentum else ()


class Optimizer(torch.optim.Optimizer):
    """Updates parameters, or the pieces of parameters that ZeRO puts in their place.

    Args:
        parameters_by_name: Trained parameters by name.
        settings: Settings of the optimiser.
        optimizer_precision: Simulated rounding, and how states are kept.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        seed: Seed of stochastic rounding. It includes the rank, since pieces depend on the number
            of ranks.
    """

    def __init__(
        self,
        parameters_by_name: Mapping[str, nn.Parameter],
        settings: OptimizerSection,
        optimizer_precision: OptimizerPrecisionSection,
        *,
        lr: float,
        weight_decay: float,
        seed: int = 0,
    ) -> None:
        self._settings = settings
        self._optimizer_precision = optimizer_precision
        self._codec = StateCodec(optimizer_precision)
        self._seed = seed
        parameters_by_rule: dict[str, list[nn.Parameter]] = {}
        self._rules: dict[nn.Parameter, str] = {}
        for name, parameter in parameters_by_name.items():
            rule = self._rules[parameter] = update_rule(settings, name, parameter)
            parameters_by_rule.setdefault(rule, []).append(parameter)
        groups = [
            # DeepSpeed replaces ``params`` by pieces; ``members`` stays the parameters
            {"params": parameters, "members": list(parameters), "rule": rule}
            for rule, parameters in parameters_by_rule.items()
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    def init_states(self, tensors: Iterable[tuple[torch.Tensor, int]], num_steps: int) -> None:
        """Give every tensor states of zeros.

        Args:
            tensors: Tensors to update, after DeepSpeed has put its pieces in place, each with the
                number of its group.
            num_steps: Number of updates made so far, which corrects the bias of the moments.
        """
        for number, (tensor, group) in enumerate(tensors):
            names = state_names(self._settings, self.param_groups[group]["rule"])
            state: dict[str, Any] = {"number": number, "names": names, "updates": num_steps}
            for name in names:
                state |= self._codec.zeros(tensor, name)
            self.state[tensor] = state

    def state_names_of(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """Names of the states of a parameter of the model."""
        return state_names(self._settings, self._rules[parameter])

    def decode_state(self, name: str) -> None:
        """Add a state of all tensors in floating point, shaped like its tensor, under its name."""
        for tensor, state in self.state.items():
            if name in state["names"]:
                self._codec.decode(state, name, tensor)

    def encode_state(self, name: str) -> None:
        """Undo ``decode_state``.

        The values are coded once more, so this run continues from the same states as a run that is
        resumed from the checkpoint.
        """
        for state in self.state.values():
            if name in state["names"]:
                self._codec.encode(state, name)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all tensors that ``param_groups`` holds now; ZeRO shows a part at a time."""
        for group in self.param_groups:
            tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
            generators = [self._generator(tensor) for tensor in tensors]
            for tensor, generator in zip(tensors, generators, strict=True):
                round_(tensor.grad, self._optimizer_precision.gradients, generator)
            update = self._adamw if group["rule"] == ADAMW else self._step_along_direction
            update(group, tensors, generators)
            for tensor, generator in zip(tensors, generators, strict=True):
                round_(tensor, self._optimizer_precision.weights, generator)
                self.state[tensor]["updates"] += 1

    def _generator(self, tensor: torch.Tensor) -> torch.Generator | None:
        """Random generator of stochastic rounding in this update, the same when it is repeated."""
        roundings = (
            self._optimizer_precision.gradients,
            self._optimizer_precision.weights,
            self._optimizer_precision.states,
        )
        if all(rounding.mode == "nearest" for rounding in roundings):
            return None
        state = self.state[tensor]
        seed = seed_from("rounding", self._seed, state["updates"], state["number"])
        return torch.Generator(tensor.device).manual_seed(seed % 2**63)

    def _adamw(
        self,
        group: dict[str, Any],
        tensors: list[torch.Tensor],
        generators: list[torch.Generator | None],
    ) -> None:
        if self._codec.is_exact:  # one kernel for all tensors
            self._adamw_parts(group, [(tensor, 0, tensor.numel()) for tensor in tensors])
            return
        for tensor, generator in zip(tensors, generators, strict=True):
            for first in range(0, tensor.numel(), CHUNK):  # bounds the temporary float32 moments
                part = (tensor, first, min(first + CHUNK, tensor.numel()))
                (moments,) = self._adamw_parts(group, [part])
                for key, moment in zip(MOMENTS, moments, strict=True):
                    self._codec.write(self.state[tensor], key, moment, first, generator)

    def _adamw_parts(
        self, group: dict[str, Any], parts: list[tuple[torch.Tensor, int, int]]
    ) -> list[list[torch.Tensor]]:
        """Update elements of tensors; returns their new moments."""
        moments = [
            [self._codec.read(self.state[tensor], key, first, end) for key in MOMENTS]
            for tensor, first, end in parts
        ]
        adamw(
            [tensor.view(-1)[first:end] for tensor, first, end in parts],
            [_grad(tensor).view(-1)[first:end] for tensor, first, end in parts],
            [mean for mean, _ in moments],
            [mean_square for _, mean_square in moments],
            [],
            [
                torch.tensor(float(self.state[tensor]["updates"]), device=tensor.device)
                for tensor, _, _ in parts
            ],
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=group["lr"],
            beta1=self._settings.beta1,
            beta2=self._settings.beta2,
            eps=1e-8,
            weight_decay=group["weight_decay"],
        )
        return moments

    def _step_along_direction(
        self,
        group: dict[str, Any],
        tensors: list[torch.Tensor],
        generators: list[torch.Generator | None],
    ) -> None:
        for tensor, generator in zip(tensors, generators, strict=True):
            direction = self._averaged_gradient(tensor, generator)
            if not self._settings.rule.needs_matrices:
                direction = direction.sign()
            elif has_fragment_mapping(group["members"][0]):  # ``tensor`` is this rank's piece
                apply_to_gathered_matrices(group["members"], direction, self._direction)
            else:
                direction = self._direction(direction.view_as(tensor))
            tensor.mul_(1 - group["lr"] * group["weight_decay"])
            tensor.sub_(direction.view_as(tensor), alpha=group["lr"])

    def _averaged_gradient(
        self, tensor: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """(N,) gradient, or average of gradients, from which the direction is computed."""
        settings, gradient = self._settings, _grad(tensor).view(-1)
        if not settings.has_momentum:
            return gradient.clone()
        state, (key,) = self.state[tensor], MOMENTUM
        uses_nesterov = (
            settings.rule.average is Average.NESTEROV
            and settings.nesterov
            and not settings.variance_reduction
        )
        average = torch.empty_like(gradient)
        for first in range(0, tensor.numel(), CHUNK):
            part = slice(first, min(first + CHUNK, tensor.numel()))
            momentum = self._codec.read(state, key, part.start, part.stop)
            if settings.variance_reduction:
                update_corrected_momentum_(momentum, gradient[part], settings.momentum)
            else:
                momentum.lerp_(gradient[part], 1 - settings.momentum)
            average[part] = (
                gradient[part].lerp(momentum, settings.momentum) if uses_nesterov else momentum
            )
            self._codec.write(state, key, momentum, first, generator)
        return average

    def _direction(self, gradient: torch.Tensor) -> torch.Tensor:
        settings = self._settings
        if settings.rule.direction is Direction.ORTHOGONAL:
            return orthogonalized(gradient) * orthogonal_rms_scale(gradient.shape)
        direction = steepest_direction(gradient, settings.geometry, settings.p)
        return direction * rms_scale(direction) if settings.match_rms else direction


def _grad(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad
