"""One optimiser update over a global batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.config.schema import LossWeights, RunConfig, Tasks
from mmtpp.core.errors import NonFiniteLossError
from mmtpp.core.loss_sums import LossSums
from mmtpp.core.row import Row
from mmtpp.core.seeds import seed_from
from mmtpp.core.tasks import HISTORY_TASK, TASKS
from mmtpp.core.time_smoothing import TimeSmoothing
from mmtpp.core.tokens import Modality
from mmtpp.model.batch import Batcher
from mmtpp.train.engine import Engine, sum_over_ranks


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one update says, summed over all ranks.

    Attributes:
        losses: unweighted, by modality.
        num_tokens: in the step's rows.
        grad_norm: before clipping.
        learning_rate: of the update.
    """

    losses: LossSums
    num_tokens: int
    grad_norm: float
    learning_rate: float


class LabelWeights:
    """The weight of every label in the loss: of its modality, and of its task where one asks.

    Args:
        modalities: weights of the modalities.
        tasks: weights of the tasks.
    """

    def __init__(self, modalities: LossWeights, tasks: Tasks) -> None:
        self._modality = np.zeros(len(Modality))
        for modality in (Modality.TIME, Modality.TYPE, Modality.TEXT, Modality.CONTROL):
            self._modality[modality] = getattr(modalities, modality.name.lower())
        self._task = np.zeros(1 + len(TASKS))
        self._task[HISTORY_TASK] = tasks.history
        for name, task in TASKS.items():
            self._task[task] = getattr(tasks, name)

    def __call__(self, row: Row) -> NDArray[np.float64]:
        """(N,) of the labels of a row."""
        labels = row.label_positions()
        weights = self._modality[row.modality[labels]]
        return weights if row.branches is None else weights * self._task[row.branches.task[labels]]


def smoothing_of(
    config: RunConfig, *, tick: float, byte_ids: Sequence[int]
) -> TimeSmoothing | None:
    """What spreads the labels of intervals; None where they stay as they are.

    Args:
        config: of the run.
        tick: of the clock of the training times, in the source's unit.
        byte_ids: (256,) ids of the byte tokens.
    """
    if not config.training.time_smoothing:
        return None
    return TimeSmoothing(
        config.training.time_smoothing,
        tick=tick,
        num_bytes=config.template.time_bytes,
        byte_ids=byte_ids,
    )


def train_step(
    engine: Engine,
    rows: Sequence[Row],
    batcher: Batcher,
    *,
    num_micro_batches: int,
    weigh: LabelWeights,
    seed: int,
    step: int,
    moved: Callable[[int], None] = lambda _index: None,
    smoothing: TimeSmoothing | None = None,
) -> StepReport:
    """Update the model once.

    The loss is the weighted sum over all labels of the step divided by the sum of their weights,
    both over the whole cluster, so neither the number of workers nor the uneven lengths of rows
    change it.

    Args:
        engine: of this rank.
        rows: this rank's share of the step.
        num_micro_batches: of every rank, since ZeRO's ranks must keep step; a rank with fewer rows
            repeats its last one at no weight.
        batcher: moves rows to the device.
        weigh: weighs the labels.
        seed: of the run.
        step: updates made before.
        moved: told of every micro-batch before it is computed.
        smoothing: spreads the labels of intervals; reported losses are of the labels themselves.

    Raises:
        NonFiniteLossError: on every rank, before the update, when any rank's loss is not finite.
    """
    modalities = [row.modality[row.label_positions()] for row in rows]
    label_weights = [weigh(row) for row in rows]
    device = batcher.device
    counts = torch.tensor(
        [sum(part.sum() for part in label_weights), sum(len(row.input_ids) for row in rows)],
        dtype=torch.float64,
        device=device,
    )
    total_weight, num_tokens = sum_over_ranks(counts).tolist()
    if total_weight == 0:
        raise ValueError(f"no labels with a positive weight in step {step}")

    nll: list[torch.Tensor] = []
    for each in engine.passes:
        with engine.weights_of(each):
            for index in range(num_micro_batches):
                moved(index)
                place = min(index, len(rows) - 1)
                row, weight = rows[place], label_weights[place]
                # Dropout is a function of sample and step: a resumed run repeats it exactly.
                torch.manual_seed(seed_from("dropout", seed, step, row.sample_id) % 2**63)
                batch = batcher(row)
                if smoothing is not None:
                    batch = replace(batch, spread=batcher.spread(row, smoothing))
                nll_N, _ = engine.score(batch)
                if index >= len(rows):
                    weight = np.zeros_like(weight)
                elif not each.is_before:
                    nll.append(nll_N.detach())
                weighted = nll_N * torch.as_tensor(weight, device=device, dtype=torch.float32)
                engine.backward(each.factor * weighted.sum() / total_weight)

    losses = LossSums.from_labels(
        torch.cat(nll).double().cpu().numpy(), np.concatenate(modalities)
    )  # sync
    merged = sum_over_ranks(torch.tensor([*losses.nll, *losses.tokens], device=device))
    losses = LossSums(*np.split(merged.cpu().numpy(), 2))
    where = f"step {step}, samples of this rank {[row.sample_id for row in rows]}"
    if not np.isfinite(losses.nll).all():
        raise NonFiniteLossError(
            "the loss is not finite",
            where=where,
            cause="diverged or damaged weights; the last checkpoint is from before this step",
        )
    return StepReport(losses, int(num_tokens), engine.update(step, where), engine.learning_rate)
