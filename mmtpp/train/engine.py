"""The DeepSpeed engine behind the few calls the loop makes. Runs in Train workers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import deepspeed
import torch
import torch.distributed as dist

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import NonFiniteLossError
from mmtpp.core.lr_schedule import lr_factor
from mmtpp.core.sample_order import num_micro_batches
from mmtpp.core.seeds import seed_from
from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel
from mmtpp.train.optimizer.optimizer import Optimizer
from mmtpp.train.training_state import TrainingState
from mmtpp.train.zero import stage_of, with_bucket

Scores = tuple[torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward and backward over all samples of a step.

    Attributes:
        factor: of its gradient in the step's.
        is_before: it is at the weights before the last update.
    """

    factor: float
    is_before: bool


class Engine(Protocol):
    """What the loop needs of a training engine."""

    @property
    def model(self) -> EventModel:
        """The model; parameters may be sharded, see ``whole_parameters``."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of the last update."""
        ...

    @property
    def passes(self) -> Sequence["Pass"]:
        """Of a step over its samples."""
        ...

    def weights_of(self, each: "Pass") -> AbstractContextManager[None]:
        """While a pass is made."""
        ...

    def score(self, batch: Batch, type_ids: torch.Tensor | None = None) -> Scores:
        """Forward pass, see ``EventModel.forward``."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of this rank's part of the step's loss."""
        ...

    def update(self, step: int, where: str) -> float:
        """One optimiser update; returns the gradient norm before clipping."""
        ...

    def whole_parameters(self) -> dict[str, torch.Tensor]:
        """What ``save_trained`` writes, by names in the backbone; empty but on rank 0."""
        ...

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint."""
        ...

    def load(self, folder: Path, *, num_updates: int) -> None:
        """Restore a checkpoint that any number of ranks wrote after so many updates."""
        ...


class DeepSpeedEngine:
    """DeepSpeed with ZeRO and the optimiser of ``optimizer.name``.

    Gradients: DeepSpeed averages over ranks and accumulation steps. The loop's loss is a sum over
    this rank's labels divided by the labels of the whole step, so ``backward`` multiplies by the
    number of ranks and of micro-batches to make the result the gradient of the step's mean loss,
    whatever the split (tests/parity/test_accumulation.py).

    Variance reduction: STORM's estimate is ``d = g + momentum (d' - g')``, with the gradient ``g'``
    of the same samples at the weights before. Gradients add up, so a second pass at those weights,
    of the loss times ``-momentum``, gives ``g - momentum g'`` in the buffers DeepSpeed has anyhow.

    Args:
        model: what to train.
        config: of the run.
        deepspeed_config: what ``zero.deepspeed_config`` made of it.
        rank: of this worker; torch.distributed is initialised.
        num_ranks: workers in the group.
    """

    def __init__(
        self,
        model: EventModel,
        config: RunConfig,
        deepspeed_config: dict[str, object],
        *,
        rank: int,
        num_ranks: int,
    ) -> None:
        training = config.training
        self._config = training
        self._stage = stage_of(deepspeed_config)
        settings = config.optimizer
        self._passes = (Pass(1.0, is_before=False),)
        if settings.variance_reduction:
            self._passes += (Pass(-settings.momentum, is_before=True),)
        samples = num_micro_batches(training.samples_per_step, num_ranks=num_ranks)
        self._scale = num_ranks * samples * len(self._passes)
        named = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._trained = list(named.values())
        self._before = (
            {name: each.detach().clone() for name, each in named.items()}
            if settings.variance_reduction
            else {}
        )
        optimizer = Optimizer(
            named,
            settings,
            config.precision,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            seed=seed_from(training.seed, rank),
        )
        num_trained = sum(getattr(each, "ds_numel", each.numel()) for each in self._trained)
        self._engine: Any = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=with_bucket(deepspeed_config, num_trained=num_trained),
        )[0]
        self._rank = rank
        self._state = TrainingState(
            self._engine, optimizer, before=self._before, rank=rank, num_ranks=num_ranks
        )

    @property
    def model(self) -> EventModel:
        return self._engine.module

    @property
    def learning_rate(self) -> float:
        return self._engine.optimizer.param_groups[0]["lr"]

    @property
    def passes(self) -> Sequence[Pass]:
        return self._passes

    @contextmanager
    def weights_of(self, each: Pass) -> Iterator[None]:
        if each.is_before:
            self._swap()
        yield
        if each.is_before:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange weights and weights before, a tensor at a time."""
        for parameter, before in zip(self._trained, self._before.values(), strict=True):
            now = parameter.detach().clone()
            parameter.copy_(before)
            before.copy_(now)

    def score(self, batch: Batch, type_ids: torch.Tensor | None = None) -> Scores:
        return self._engine(batch, type_ids)

    def backward(self, loss: torch.Tensor) -> None:
        self._engine.backward(loss * self._scale)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the micro-batch; updates nothing

    def update(self, step: int, where: str) -> float:
        factor = lr_factor(
            step,
            num_steps=self._config.num_steps,
            warmup_fraction=self._config.warmup_fraction,
            final_fraction=self._config.final_lr_fraction,
        )
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._config.learning_rate * factor
        for parameter, before in zip(self._trained, self._before.values(), strict=False):
            before.copy_(parameter.detach())
        if self._stage:
            self._engine.step()  # refuses an update that is not finite
            norm = float(self._engine.get_global_grad_norm())
            self._check(norm, where)
            return norm
        total_norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self._trained if p.grad is not None]
        )
        norm = float(total_norm)
        self._check(norm, where)
        torch.nn.utils.clip_grads_with_norm_(self._trained, self._config.max_grad_norm, total_norm)
        self._engine.step()
        return norm

    @staticmethod
    def _check(norm: float, where: str) -> None:
        if not math.isfinite(norm):
            raise NonFiniteLossError("the gradient norm is not finite", where=where)

    def whole_parameters(self) -> dict[str, torch.Tensor]:
        whole: dict[str, torch.Tensor] = {}
        for name, parameter in self.model.saved_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                if self._rank == 0:
                    whole[name] = parameter.detach().to("cpu", copy=True)
        return whole

    def save(self, folder: Path) -> None:
        self._state.save(folder)

    def load(self, folder: Path, *, num_updates: int) -> None:
        self._state.load(folder, num_updates=num_updates)


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Sum a small tensor over all ranks, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values
