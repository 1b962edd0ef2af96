"""One optimiser for every rule of ``optimizer.name``, under any ZeRO stage that can carry it.

torch's AdamW does AdamW's arithmetic. Muon is not torch's, which takes matrices where ZeRO hands an
optimiser flat pieces of them, nor DeepSpeed's, which orthogonalises before it clips, so that
``max_grad_norm`` shortens all steps by the number of matrices, and whose momentum on each rank no
other number of ranks can read back. Here gradients are clipped first, momentum is sharded like
AdamW's moments, and only what is to be orthogonalised is gathered.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from mmtpp.config.schema import Optimizer as Settings
from mmtpp.config.schema import Precision
from mmtpp.core.seeds import seed_from
from mmtpp.experiments.geometry import orthogonalized, rms_scale, steepest_direction
from mmtpp.experiments.rounding import round_
from mmtpp.train.optimizer.states import CHUNK, States
from mmtpp.train.optimizer.whole import apply_to_whole

ADAMW, DESCENT = "adamw", "descent"
MOMENTS, MOMENTUM = ("exp_avg", "exp_avg_sq"), ("momentum_buffer",)
# PEFT's names and the model's own for what has a row for each token
_TOKEN_ROWS = ("embed_tokens", "lm_head", "trainable_tokens")


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps vectors to vectors, as Muon's do; LoRA's factors among them."""
    shape = getattr(parameter, "ds_shape", parameter.shape)
    return len(shape) == 2 and not any(part in name for part in _TOKEN_ROWS)


def rule_of(settings: Settings, name: str, parameter: nn.Parameter) -> str:
    """What moves a parameter: ``adamw`` or ``descent``."""
    if settings.name == "adamw":
        return ADAMW
    is_for_matrices = settings.name == "muon" or (
        settings.name == "steepest" and settings.geometry == "schatten"
    )
    return ADAMW if is_for_matrices and not is_hidden_matrix(name, parameter) else DESCENT


def state_names(settings: Settings, rule: str) -> tuple[str, ...]:
    """The states of a parameter with that rule."""
    if rule == ADAMW:
        return MOMENTS
    has_momentum = settings.name != "signsgd" and settings.momentum > 0
    return MOMENTUM if has_momentum else ()


class Optimizer(torch.optim.Optimizer):
    """Updates parameters, or the pieces of them that ZeRO has put in their place.

    Args:
        named: trained parameters by name.
        settings: the rule.
        precision: rounding, and how states are kept.
        lr: learning rate.
        weight_decay: decoupled.
        seed: of stochastic rounding, with the rank: pieces differ with the number of ranks.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        settings: Settings,
        precision: Precision,
        *,
        lr: float,
        weight_decay: float,
        seed: int = 0,
    ) -> None:
        self._settings = settings
        self._precision = precision
        self._states = States(precision)
        self._seed = seed
        rules: dict[str, list[nn.Parameter]] = {}
        self._rules: dict[nn.Parameter, str] = {}
        for name, parameter in named.items():
            rule = self._rules[parameter] = rule_of(settings, name, parameter)
            rules.setdefault(rule, []).append(parameter)
        groups = [
            # DeepSpeed puts pieces into ``params``; their parameters stay known
            {"params": members, "members": list(members), "rule": rule}
            for rule, members in rules.items()
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    def start(self, tensors: Iterable[tuple[torch.Tensor, int]], num_updates: int) -> None:
        """Give every tensor its states, of zeros.

        Args:
            tensors: what will be updated, once DeepSpeed has put its pieces in place, with the
                number of its group.
            num_updates: made until then, which corrects the bias of the moments.
        """
        for number, (tensor, group) in enumerate(tensors):
            names = state_names(self._settings, self.param_groups[group]["rule"])
            state: dict[str, Any] = {"number": number, "names": names, "updates": num_updates}
            for name in names:
                state |= self._states.zeros(tensor, name)
            self.state[tensor] = state

    def state_names_of(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """Of a parameter of the model."""
        return state_names(self._settings, self._rules[parameter])

    def expand(self, name: str) -> None:
        """Show a state in floating point, of its tensors' shapes, under its name."""
        for tensor, state in self.state.items():
            if name in state["names"]:
                self._states.expand(state, name, tensor)

    def collapse(self, name: str) -> None:
        """Keep it as before ``expand``, rounded once more: this run goes on from what a resumed
        one reads."""
        for state in self.state.values():
            if name in state["names"]:
                self._states.collapse(state, name)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of what ``param_groups`` has now: ZeRO shows a part at a time."""
        for group in self.param_groups:
            tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
            chances = [self._chance(tensor) for tensor in tensors]
            for tensor, chance in zip(tensors, chances, strict=True):
                round_(tensor.grad, self._precision.gradients, chance)
            update = self._adamw if group["rule"] == ADAMW else self._descend
            update(group, tensors, chances)
            for tensor, chance in zip(tensors, chances, strict=True):
                round_(tensor, self._precision.weights, chance)
                self.state[tensor]["updates"] += 1

    def _chance(self, tensor: torch.Tensor) -> torch.Generator | None:
        """What stochastic rounding draws from in this update, the same when it is repeated."""
        roundings = (self._precision.gradients, self._precision.weights, self._precision.states)
        if all(each.mode == "nearest" for each in roundings):
            return None
        state = self.state[tensor]
        seed = seed_from("rounding", self._seed, state["updates"], state["number"])
        return torch.Generator(tensor.device).manual_seed(seed % 2**63)

    def _adamw(
        self,
        group: dict[str, Any],
        tensors: list[torch.Tensor],
        chances: list[torch.Generator | None],
    ) -> None:
        if self._states.are_exact:  # one kernel for all tensors
            self._adamw_parts(group, [(tensor, 0, tensor.numel()) for tensor in tensors])
            return
        for tensor, chance in zip(tensors, chances, strict=True):
            for first in range(0, tensor.numel(), CHUNK):  # bounds what is float32 only here
                part = (tensor, first, min(first + CHUNK, tensor.numel()))
                (moments,) = self._adamw_parts(group, [part])
                for key, moment in zip(MOMENTS, moments, strict=True):
                    self._states.write(self.state[tensor], key, moment, first, chance)

    def _adamw_parts(
        self, group: dict[str, Any], parts: list[tuple[torch.Tensor, int, int]]
    ) -> list[list[torch.Tensor]]:
        """Update elements of tensors; returns their new moments."""
        moments = [
            [self._states.read(self.state[tensor], key, first, end) for key in MOMENTS]
            for tensor, first, end in parts
        ]
        adamw(
            [tensor.view(-1)[first:end] for tensor, first, end in parts],
            [_grad(tensor).view(-1)[first:end] for tensor, first, end in parts],
            [each[0] for each in moments],
            [each[1] for each in moments],
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

    def _descend(
        self,
        group: dict[str, Any],
        tensors: list[torch.Tensor],
        chances: list[torch.Generator | None],
    ) -> None:
        for tensor, chance in zip(tensors, chances, strict=True):
            ascent = self._momentum(tensor, chance)
            if not self._settings.needs_matrices:
                ascent = ascent.sign()
            elif hasattr(group["members"][0], "_hp_mapping"):  # ``tensor`` is this rank's piece
                apply_to_whole(group["members"], ascent, self._direction)
            else:
                ascent = self._direction(ascent.view_as(tensor))
            tensor.mul_(1 - group["lr"] * group["weight_decay"])
            tensor.sub_(ascent.view_as(tensor), alpha=group["lr"])

    def _momentum(self, tensor: torch.Tensor, chance: torch.Generator | None) -> torch.Tensor:
        """(N,) what the direction is of: the gradient, or an average of gradients."""
        settings, gradient = self._settings, _grad(tensor).view(-1)
        if not state_names(settings, DESCENT):
            return gradient.clone()
        state, (key,) = self.state[tensor], MOMENTUM
        looks_ahead = (
            settings.name == "muon" and settings.nesterov and not settings.variance_reduction
        )
        ascent = torch.empty_like(gradient)
        for first in range(0, tensor.numel(), CHUNK):
            part = slice(first, min(first + CHUNK, tensor.numel()))
            average = self._states.read(state, key, part.start, part.stop)
            if settings.variance_reduction:
                # the gradient is g - momentum x (the same samples' at the weights before)
                average.mul_(settings.momentum).add_(gradient[part])
            else:
                average.lerp_(gradient[part], 1 - settings.momentum)
            ahead = gradient[part].lerp(average, settings.momentum) if looks_ahead else average
            ascent[part] = ahead
            self._states.write(state, key, average, first, chance)
        return ascent

    def _direction(self, ascent: torch.Tensor) -> torch.Tensor:
        settings = self._settings
        if settings.name == "muon":
            return orthogonalized(ascent) * rms_scale(ascent.shape)
        direction = steepest_direction(ascent, settings.geometry, settings.p)
        return direction * rms_scale(ascent.shape, direction) if settings.match_rms else direction


def _grad(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad
