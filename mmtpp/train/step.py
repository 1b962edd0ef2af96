"""One optimiser update over a global batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.config.schema import LossWeights, TaskWeights, Training
from mmtpp.core.errors import NonFiniteLossError
from mmtpp.core.loss_sums import LossSums
from mmtpp.core.row import Row
from mmtpp.core.seeds import seed_from
from mmtpp.core.tasks import HISTORY_TASK, TASKS
from mmtpp.core.time_smoothing import TimeSmoothing
from mmtpp.core.tokens import Modality
from mmtpp.experiments.variance_reduction import GradientPass
from mmtpp.model.batch import Batcher
from mmtpp.train.engine import DeepSpeedEngine, sum_over_ranks


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

    def __call__(self, row: Row) -> NDArray[np.float64]:
        """(N,) weights of the labels of a row."""
        labels = row.label_positions()
        weights = self._modality[row.modality[labels]]
        return weights if row.branches is None else weights * self._task[row.branches.task[labels]]


def build_smoothing(
    training: Training, *, time_bytes: int, tick: float, byte_ids: Sequence[int]
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
    """Measurements of one update, summed over all ranks.

    Attributes:
        losses: Unweighted losses by modality.
        num_tokens: Number of tokens in the step's rows.
        grad_norm: Gradient norm before clipping.
        learning_rate: Learning rate of the update.
    """

    losses: LossSums
    num_tokens: int
    grad_norm: float
    learning_rate: float


def train_step(
    context: StepContext,
    rows: Sequence[Row],
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
        on_micro_batch: Called with the index of every micro-batch before it is computed.

    Raises:
        NonFiniteLossError: The loss or the gradient norm of any rank is not finite; raised on every
            rank before the update.
    """
    engine, device = context.engine, context.batcher.device
    label_weights = [context.label_weights(row) for row in rows]
    totals = torch.tensor(
        [
            sum(row_weights.sum() for row_weights in label_weights),
            sum(len(row.input_ids) for row in rows),
        ],
        dtype=torch.float64,
        device=device,
    )
    total_weight, num_tokens = sum_over_ranks(totals).tolist()
    if total_weight == 0:
        raise ValueError(f"no labels with a positive weight in step {step}")

    nll: list[torch.Tensor] = []
    for gradient_pass in engine.passes:
        with engine.weights_for(gradient_pass):
            for index in range(context.num_micro_batches):
                on_micro_batch(index)
                row_index = min(index, len(rows) - 1)
                nll_N = _score_label_losses(context, rows[row_index], step)
                is_repeated = index >= len(rows)
                row_weights = label_weights[row_index] * (0.0 if is_repeated else 1.0)
                if not is_repeated and not gradient_pass.at_previous_weights:
                    nll.append(nll_N.detach())
                _accumulate(context, nll_N, row_weights, gradient_pass, total_weight)

    losses = _sum_losses(nll, rows, device)
    where = f"step {step}, samples of this rank {[row.sample_id for row in rows]}"
    if not np.isfinite(losses.nll).all():
        raise NonFiniteLossError(
            "the loss is not finite",
            where=where,
            cause="training diverged, or weights are damaged; the last checkpoint is from before "
            "this step",
        )
    return StepReport(losses, int(num_tokens), engine.update(step, where), engine.learning_rate)


def _score_label_losses(context: StepContext, row: Row, step: int) -> torch.Tensor:
    """(N,) negative log-likelihoods of the labels of a row."""
    # Dropout is a function of sample and step: a resumed run repeats it exactly.
    torch.manual_seed(seed_from("dropout", context.seed, step, row.sample_id) % 2**63)
    batch = context.batcher(row)
    if context.smoothing is not None:
        batch = replace(batch, spread=context.batcher.spread(row, context.smoothing))
    return context.engine.score(batch)[0]


def _accumulate(
    context: StepContext,
    nll: torch.Tensor,
    label_weights: NDArray[np.float64],
    gradient_pass: GradientPass,
    total_weight: float,
) -> None:
    """Add the gradients of a micro-batch to the step's."""
    label_weights_tensor = torch.as_tensor(
        label_weights, device=context.batcher.device, dtype=torch.float32
    )
    weighted_nll = nll * label_weights_tensor
    context.engine.backward(gradient_pass.factor * weighted_nll.sum() / total_weight)


def _sum_losses(nll: list[torch.Tensor], rows: Sequence[Row], device: torch.device) -> LossSums:
    """Losses by modality over all ranks; waits for the device."""
    modalities = [row.modality[row.label_positions()] for row in rows]
    losses = LossSums.from_labels(torch.cat(nll).double().cpu().numpy(), np.concatenate(modalities))
    merged = sum_over_ranks(torch.tensor([*losses.nll, *losses.tokens], device=device))
    return LossSums(*np.split(merged.cpu().numpy(), 2))
