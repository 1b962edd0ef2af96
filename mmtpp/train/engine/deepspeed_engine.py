"""The DeepSpeed engine behind the few calls that the loop makes. Runs in Train workers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import torch

from mmtpp.compat.deepspeed_hooks import full_numel
from mmtpp.config.schema import OptimizerPrecisionSection, OptimizerSection, TrainingSection
from mmtpp.core.errors import NonFiniteLossError
from mmtpp.core.seeds import seed_from
from mmtpp.core.training.lr_schedule import lr_factor
from mmtpp.core.training.sample_order import num_micro_batches
from mmtpp.experiments.variance_reduction import VarianceReduction, num_gradient_passes
from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel
from mmtpp.train.engine.training_state import TrainingState
from mmtpp.train.engine.zero import with_bucket_size, zero_stage
from mmtpp.train.optimizer.optimizer import Optimizer

# (N,) nats of each label; and, if ids of types are given, the most likely type at each label
Scores = tuple[torch.Tensor, torch.Tensor | None]


class DeepSpeedEngine:
    """DeepSpeed with ZeRO and the optimiser of ``optimizer.name``.

    DeepSpeed averages gradients over ranks and accumulation steps. The loop's loss is the weighted
    sum over this rank's labels, divided by the sum of the weights of the whole step. So
    ``backward`` multiplies the loss by the number of ranks and of micro-batches. The result is the
    gradient of the step's mean loss, however samples are split
    (tests/parity/test_accumulation.py).

    Args:
        model: Model to train.
        deepspeed_config: Configuration made by ``zero.build_deepspeed_config``.
        training: Learning rate, its schedule and the size of a step.
        optimizer_settings: Settings of the optimiser.
        optimizer_precision: Simulated rounding, and how the optimiser's states are kept.
        rank: Rank of this process; torch.distributed must be initialised.
        num_ranks: Number of ranks in the group.

    Attributes:
        num_gradient_passes: Number of passes over the samples of a step.
    """

    def __init__(
        self,
        model: EventModel,
        deepspeed_config: dict[str, object],
        *,
        training: TrainingSection,
        optimizer_settings: OptimizerSection,
        optimizer_precision: OptimizerPrecisionSection,
        rank: int,
        num_ranks: int,
    ) -> None:
        self._training = training
        self._rank = rank
        self._stage = zero_stage(deepspeed_config)
        self.num_gradient_passes = num_gradient_passes(optimizer_settings)
        micro_batches = num_micro_batches(training.samples_per_step, num_ranks=num_ranks)
        self._loss_scale = num_ranks * micro_batches * self.num_gradient_passes
        parameters_by_name = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._trained = list(parameters_by_name.values())
        self._variance_reduction = (
            VarianceReduction(parameters_by_name, momentum=optimizer_settings.momentum)
            if optimizer_settings.variance_reduction
            else None
        )
        optimizer = Optimizer(
            parameters_by_name,
            optimizer_settings,
            optimizer_precision,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            seed=seed_from(training.seed, rank),
        )
        num_trained = sum(full_numel(parameter) for parameter in self._trained)
        self._engine: Any = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=with_bucket_size(deepspeed_config, num_trained=num_trained),
        )[0]
        self._state = TrainingState(
            self._engine,
            optimizer,
            previous_weights=(
                self._variance_reduction.previous_weights if self._variance_reduction else {}
            ),
            rank=rank,
            num_ranks=num_ranks,
        )

    @property
    def model(self) -> EventModel:
        """The model. Its parameters may be sharded, see ``whole_parameters``."""
        return self._engine.module

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last update."""
        return self._engine.optimizer.param_groups[0]["lr"]

    def score(self, batch: Batch, type_ids: torch.Tensor | None = None) -> Scores:
        """Forward pass, see ``EventModel.forward``."""
        return self._engine(batch, type_ids)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of this rank's part of the step's loss."""
        self._engine.backward(loss * self._loss_scale)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the micro-batch, updates nothing

    def reduce_variance(self, accumulate_gradients: Callable[[float], object]) -> None:
        """Correct the accumulated gradients if ``optimizer.variance_reduction`` is set.

        Args:
            accumulate_gradients: Makes one more pass over the step's samples, with the loss times
                its argument.
        """
        if self._variance_reduction is not None:
            self._variance_reduction.correct_gradients(accumulate_gradients)

    def update(self, step: int, where: str) -> float:
        """Update the weights once.

        Args:
            step: Number of updates before this one.
            where: Place of the step, for errors.

        Returns:
            The gradient norm before clipping.

        Raises:
            NonFiniteLossError: The gradient norm is not finite; no weight has changed.
        """
        self._set_learning_rate(step)
        if self._variance_reduction is not None:
            self._variance_reduction.record_weights()
        if self._stage:
            self._engine.step()  # skips an update that is not finite
            norm = float(self._engine.get_global_grad_norm())
            _check_finite(norm, where)
            return norm
        total_norm = torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in self._trained if parameter.grad is not None]
        )
        norm = float(total_norm)
        _check_finite(norm, where)
        max_norm = self._training.max_grad_norm
        torch.nn.utils.clip_grads_with_norm_(self._trained, max_norm, total_norm)
        self._engine.step()
        return norm

    def _set_learning_rate(self, step: int) -> None:
        factor = lr_factor(
            step,
            num_steps=self._training.num_steps,
            warmup_fraction=self._training.warmup_fraction,
            final_fraction=self._training.final_lr_fraction,
            schedule=self._training.lr_schedule,
        )
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._training.learning_rate * factor

    def whole_parameters(self) -> dict[str, torch.Tensor]:
        """The parameters that ``save_trained`` writes, by name; empty except on rank 0.

        All ranks must call this.
        """
        whole: dict[str, torch.Tensor] = {}
        for name, parameter in self.model.saved_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                if self._rank == 0:
                    whole[name] = parameter.detach().to("cpu", copy=True)
        return whole

    def save(self, folder: Path) -> None:
        """Write this rank's file of a checkpoint; all ranks must call this."""
        self._state.save(folder)

    def load(self, folder: Path, *, num_steps: int) -> None:
        """Restore a checkpoint that any number of ranks wrote; all ranks must call this.

        Args:
            folder: Folder with the files of all ranks.
            num_steps: Number of updates made before it was written.
        """
        self._state.load(folder, num_steps=num_steps)


def _check_finite(norm: float, where: str) -> None:
    if not math.isfinite(norm):
        raise NonFiniteLossError("the gradient norm is not finite", where=where)
