"""Scores held-out windows with the model that is being trained, on all ranks.

Axes: L likelihoods of a row, see ``core.representation.row``.
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.core.forecasting.event_scores import score_events
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import TASKS
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.training.loss_sums import LossSums
from mmtpp.core.training.training_metrics import (
    VALIDATION,
    VALIDATION_EVENT_NLL,
    VALIDATION_EVENTS,
    VALIDATION_INTERVAL_NLL,
    VALIDATION_TYPE_ACCURACY,
)
from mmtpp.data.samples.feed import iter_rows
from mmtpp.data.samples.plan import load_plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.train.ranks.rank_group import RankGroup
from mmtpp.train.ranks.rank_sums import sum_tensor_over_ranks
from mmtpp.train.ranks.watchdog import Stage, Watchdog
from mmtpp.train.step import StepContext
from mmtpp.train.worker_inputs import WorkerInputs


@dataclass(frozen=True, slots=True)
class EventSums:
    """Sums over events: in stage 1 over whole events, in stage 2 over answers.

    Attributes:
        num_timed: Number of events whose interval is scored.
        interval_nll: Negative log-likelihood of their intervals.
        num_typed: Number of events whose type is predicted.
        num_right: Number of right types.
        whole_nll: Negative log-likelihood of whole events; 0 in stage 2, where no answer is one.
    """

    num_timed: float = 0.0
    interval_nll: float = 0.0
    num_typed: float = 0.0
    num_right: float = 0.0
    whole_nll: float = 0.0

    def as_array(self) -> NDArray[np.float64]:
        """(5,) the sums, in the order of the attributes."""
        return np.array(astuple(self))

    def __add__(self, addend: "EventSums") -> "EventSums":
        return EventSums(*(self.as_array() + addend.as_array()).tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The validation windows of a training, and the model that scores them.

    Attributes:
        settings: Settings of the validation samples.
        inputs: What the driver sent.
        group: Place of this rank among the ranks.
        vocabulary: Vocabulary of store and model.
        step_context: Engine of this rank, and the weights of the labels.
        watchdog: Thread that reports a hanging rank.
    """

    settings: SampleSettings
    inputs: WorkerInputs
    group: RankGroup
    vocabulary: Vocabulary
    step_context: StepContext
    watchdog: Watchdog

    def run(self, step: int) -> dict[str, float]:
        """Score the windows once; every rank makes the same number of forward passes.

        Args:
            step: Number of updates made.

        Returns:
            Losses by modality and with the weights of the labels, interval NLL and next-type
            accuracy; in stage 1 also the NLL of whole events in nats per event. The values are the
            same on all ranks. In stage 2 they are those of the answers.

        Raises:
            DataError: No validation event is a target; raised on every rank.
        """
        engine, device = self.step_context.engine, self.group.device
        type_codes = np.asarray(self.inputs.type_codes)
        type_ids = torch.tensor(self.vocabulary.type_ids(self.inputs.type_codes), device=device)
        losses = LossSums.from_labels(np.zeros(0), np.zeros(0, dtype=np.int64))
        event_sums, num_targets = EventSums(), 0
        engine.model.eval()
        with torch.no_grad():
            for index, (row, is_counted) in enumerate(self._rows()):
                self.watchdog.record_position(
                    step, Stage.VALIDATING, f"validating row {index + 1}", index=index
                )
                nll_L, best_type_L = engine.score(self.step_context.batcher(row), type_ids)
                if not is_counted:
                    continue
                nll = nll_L.double().cpu().numpy()
                assert best_type_L is not None
                best_types = type_codes[best_type_L.cpu().numpy()]
                weights = self.step_context.label_weights(row)
                losses += LossSums.from_labels(nll, row.likelihood_modalities(), weights)
                score = _score_sequence if row.branches is None else _score_answers
                event_sums += score(row, nll, best_types)
                num_targets += int(row.event_is_target.sum())
        engine.model.train()
        num_loss_sums = len(losses.as_array())
        sums = [*losses.as_array(), *event_sums.as_array(), num_targets]
        merged = sum_tensor_over_ranks(torch.tensor(sums, device=device)).cpu().numpy()
        losses = LossSums.from_array(merged[:num_loss_sums])
        event_sums = EventSums(*merged[num_loss_sums:-1].tolist())
        self._check_targets(int(merged[-1]))
        # labels are whole events in stage 1 and with soft tokens
        whole_events = self.inputs.trained_tasks is None or self.inputs.soft is not None
        return losses.per_token(VALIDATION) | _event_metrics(event_sums, whole_events=whole_events)

    def _check_targets(self, num_targets: int) -> None:
        if num_targets:
            return
        raise DataError(
            "no validation event is a target",
            where=self.settings.store.data_uri,
            cause="evaluation.targets_delta, or in stage 1 the compression, leaves out every event "
            "of the validation split",
            setting=f"evaluation.targets_delta = {self.settings.targets_delta:g}",
        )

    def _rows(self) -> Iterator[tuple[PackedRow, bool]]:
        """Validation rows of this rank, and whether each is counted.

        Ranks with fewer rows repeat rows that are not counted, to make the same number of forward
        passes.
        """
        plan = load_plan(self.inputs.validation_plan_uri, self.settings.store.open_disk_cache)
        num_samples, num_ranks = plan.num_samples, self.group.num_ranks
        num_rounds = -(-num_samples // num_ranks)
        positions = np.arange(num_rounds) * num_ranks + self.group.rank
        rows = iter_rows(plan, positions % num_samples, self.settings, self.vocabulary.token_ids())
        return zip(rows, (positions < num_samples).tolist(), strict=True)


def _event_metrics(sums: EventSums, *, whole_events: bool) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if sums.num_timed:
        metrics[VALIDATION_EVENTS] = sums.num_timed
        metrics[VALIDATION_INTERVAL_NLL] = sums.interval_nll / sums.num_timed
        if whole_events:
            metrics[VALIDATION_EVENT_NLL] = sums.whole_nll / sums.num_timed
    if sums.num_typed:
        metrics[VALIDATION_TYPE_ACCURACY] = sums.num_right / sums.num_typed
    return metrics


def _score_sequence(
    row: PackedRow, nll: NDArray[np.float64], best_types: NDArray[np.integer]
) -> EventSums:
    """Stage 1: sums over the target events."""
    scores = score_events(nll, row.likelihood_modalities(), row.likelihood_events(), best_types)
    is_target = row.event_is_target[scores.event]
    is_right = scores.predicted_type == row.event_type[scores.event]
    count = float(is_target.sum())
    interval_nll, whole_nll = scores.interval_code_nll[is_target].sum(), scores.nll[is_target].sum()
    return EventSums(
        num_timed=count,
        interval_nll=float(interval_nll),
        num_typed=count,
        num_right=float(is_right[is_target].sum()),
        whole_nll=float(whole_nll),
    )


def _score_answers(
    row: PackedRow, nll: NDArray[np.float64], best_types: NDArray[np.integer]
) -> EventSums:
    """Stage 2: sums over the answers to questions about times and types of the target events.

    Types are predicted from the history alone if the row asks for that, else given the time.
    """
    assert row.branches is not None
    labels = row.label_positions()
    task, modality, event = row.branches.task[labels], row.modality[labels], row.event[labels]
    is_target = row.event_is_target[event]
    is_timed = is_target & (task == TASKS["time"]) & (modality == Modality.TIME)
    is_type = is_target & (modality == Modality.TYPE)
    is_typed = is_type & (task == TASKS["type"])
    if not is_typed.any():
        is_typed = is_type & (task == TASKS["joint"])
    is_right = best_types[is_typed] == row.event_type[event[is_typed]]
    num_timed = float(len(np.unique(event[is_timed])))
    return EventSums(
        num_timed=num_timed,
        interval_nll=float(nll[is_timed].sum()),
        num_typed=float(is_typed.sum()),
        num_right=float(is_right.sum()),
    )
