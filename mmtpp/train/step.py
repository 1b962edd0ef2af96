"""One optimiser update over a global batch.

Axes: L likelihoods of a row, see ``core.representation.row``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.config.schema import LossWeights, TaskWeights, TrainingSection
from mmtpp.core.errors import ConfigError, NonFiniteLossError
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import HISTORY_TASK, TASKS
from mmtpp.core.representation.time_smoothing import TimeSmoothing
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.seeds import seed_from
from mmtpp.core.training.loss_sums import LossSums
from mmtpp.model.batch import Batcher
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.ranks.rank_sums import sum_numbers_over_ranks

FloatArray = NDArray[np.float64]


class LabelWeights:
    """The weight of every label in the loss, by its modality and, in stage 2, by its task.

    Args:
        modalities: Weights of the modalities.
        tasks: Weights of the tasks.
    """

    def __init__(self, modalities: LossWeights, tasks: TaskWeights) -> None:
        self._modality = np.zeros(len(Modality))
        for modality in (Modality.TIME, Modality.TYPE, Modality.TEXT, Modality.CONTROL):
            self._modality[modality] = getattr(modalities, modality.name.lower())
        self._task = np.zeros(1 + len(TASKS))
        self._task[HISTORY_TASK] = tasks.history
        for name, task in TASKS.items():
            self._task[task] = getattr(tasks, name)
        self._sections = {"training.loss_weights": modalities, "tasks": tasks}

    def __call__(self, row: PackedRow) -> FloatArray:
        """(L,) weights of a row's likelihoods: one of each label, with soft tokens two."""
        weights = self._modality[row.likelihood_modalities()]
        if row.branches is None:
            return weights
        return weights * self._task[row.branches.task[row.label_positions()]]

    def describe(self) -> str:
        """The settings of the weights with their values, for errors."""
        return ", ".join(
            f"{section}.{key} = {value:g}"
            for section, weights in self._sections.items()
            for key, value in weights.model_dump().items()
        )


def build_smoothing(
    training: TrainingSection, *, time_bytes: int, tick: float, byte_ids: Sequence[int]
) -> TimeSmoothing | None:
    """The smoothing of interval labels; None when ``training.time_smoothing`` is 0.

    Args:
        training: Width of the kernel.
        time_bytes: Number of bytes in a time code, ``template.time_bytes``.
        tick: Tick of the clock of the training times, in the source's unit.
        byte_ids: (256,) ids of the byte tokens.
    """
    if not training.time_smoothing:
        return None
    return TimeSmoothing(
        training.time_smoothing, tick=tick, num_bytes=time_bytes, byte_ids=byte_ids
    )


@dataclass(frozen=True, slots=True)
class StepContext:
    """Everything that the steps of a rank have in common.

    Attributes:
        engine: Engine of this rank.
        batcher: Moves rows to the device.
        label_weights: Weights the labels.
        num_micro_batches: Number of micro-batches of every rank in a step. ZeRO's ranks must make
            the same number; a rank with fewer rows repeats its last row at no weight.
        seed: Seed of the run.
        smoothing: Spreads the labels of intervals; None leaves them unchanged. Reported losses are
            those of the unchanged labels.
    """

    engine: DeepSpeedEngine
    batcher: Batcher
    label_weights: LabelWeights
    num_micro_batches: int
    seed: int
    smoothing: TimeSmoothing | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """Measurements of one update, the same on every rank.

    Attributes:
        losses: Losses by modality and the weighted loss, summed over all ranks.
        num_tokens: Number of tokens in the rows of all ranks.
        grad_norm: Norm of the global gradient before clipping.
        learning_rate: Learning rate of the update.
    """

    losses: LossSums
    num_tokens: int
    grad_norm: float
    learning_rate: float


def train_step(
    context: StepContext,
    rows: Sequence[PackedRow],
    step: int,
    *,
    on_micro_batch: Callable[[int], None] = lambda _index: None,
) -> StepReport:
    """Update the model once; all ranks must call this.

    The loss is the weighted sum over all labels of the step divided by the sum of their weights,
    both over all ranks. So neither the number of workers nor the uneven lengths of rows change it.

    Args:
        context: Engine and settings of this rank.
        rows: Rows of this rank in the step.
        step: Number of updates before this one.
        on_micro_batch: Called before every micro-batch with the number of those before it in the
            step. ``optimizer.variance_reduction`` computes each micro-batch twice, and the number
            runs on through the second pass.

    Raises:
        ConfigError: No label of the step has a positive weight; raised on every rank.
        NonFiniteLossError: The loss or the gradient norm of any rank is not finite; raised on every
            rank before the update.
    """
    engine, device = context.engine, context.batcher.device
    weights_by_row = [context.label_weights(row) for row in rows]
    total_weight, num_tokens = _sum_weights_and_tokens(rows, weights_by_row, device)
    where = f"step {step}, samples of this rank {[row.sample_id for row in rows]}"
    if total_weight == 0:
        raise ConfigError(
            "no label of the step has a positive weight",
            where=where,
            cause="the samples of the step have labels only of modalities or tasks whose weight is "
            "0; raise their weight, or training.samples_per_step",
            setting=context.label_weights.describe(),
        )
    micro_batches = _pad_rows(rows, weights_by_row, context.num_micro_batches)
    micro_batch_index = count()  # over all passes of the step

    def accumulate_gradients(factor: float) -> list[torch.Tensor]:
        """Add the gradients of the loss times ``factor``; return the (L,) losses of each row."""
        nll: list[torch.Tensor] = []
        for row, weights in micro_batches:
            on_micro_batch(next(micro_batch_index))
            nll_L = _label_losses(context, row, step)
            weights_L = torch.as_tensor(weights, device=device, dtype=torch.float32)
            engine.backward(factor * (nll_L * weights_L).sum() / total_weight)
            nll.append(nll_L.detach())
        return nll[: len(rows)]

    losses = _sum_losses(accumulate_gradients(1.0), rows, weights_by_row, device)
    if engine.num_gradient_passes > 1:
        engine.reduce_variance(accumulate_gradients)
    _check_finite(losses, where)
    grad_norm = engine.update(step, where)
    return StepReport(losses, num_tokens, grad_norm, engine.learning_rate)


def _check_finite(losses: LossSums, where: str) -> None:
    if not np.isfinite(losses.nll).all():
        raise NonFiniteLossError(
            "the loss is not finite",
            where=where,
            cause="training diverged, or weights are damaged; the last checkpoint is from before "
            "this step",
        )


def _sum_weights_and_tokens(
    rows: Sequence[PackedRow], weights_by_row: Sequence[FloatArray], device: torch.device
) -> tuple[float, int]:
    """Sum of the label weights and number of tokens of the step, over all ranks."""
    sums = [
        sum(weights.sum() for weights in weights_by_row),
        sum(len(row.input_ids) for row in rows),
    ]
    total_weight, num_tokens = sum_numbers_over_ranks(sums, device).tolist()
    return total_weight, int(num_tokens)


def _pad_rows(
    rows: Sequence[PackedRow], weights_by_row: Sequence[FloatArray], num_micro_batches: int
) -> list[tuple[PackedRow, FloatArray]]:
    """Rows of the micro-batches with their label weights; padding is the last row at no weight."""
    padding = (rows[-1], np.zeros_like(weights_by_row[-1]))
    num_missing = num_micro_batches - len(rows)
    return [*zip(rows, weights_by_row, strict=True), *[padding] * num_missing]


def _label_losses(context: StepContext, row: PackedRow, step: int) -> torch.Tensor:
    """(L,) negative log-likelihoods of a row: one of each label, with soft tokens two."""
    # Dropout is a function of sample and step: a resumed run repeats it exactly.
    torch.manual_seed(seed_from("dropout", context.seed, step, row.sample_id) % 2**63)
    batch = context.batcher(row)
    if context.smoothing is not None:
        batch = replace(batch, spread=context.batcher.spread(row, context.smoothing))
    nll_L, _ = context.engine.score(batch)
    return nll_L


def _sum_losses(
    nll: list[torch.Tensor],
    rows: Sequence[PackedRow],
    weights_by_row: Sequence[FloatArray],
    device: torch.device,
) -> LossSums:
    """Losses over all ranks; waits for the device."""
    losses = LossSums.from_labels(
        torch.cat(nll).double().cpu().numpy(),
        np.concatenate([row.likelihood_modalities() for row in rows]),
        np.concatenate(weights_by_row),
    )
    return LossSums.from_array(sum_numbers_over_ranks(losses.as_array(), device))
