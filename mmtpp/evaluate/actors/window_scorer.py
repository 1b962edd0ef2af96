"""Score held-out windows with a trained model: a Ray Data actor, on a GPU where there is one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from mmtpp.core.forecasting.event_scores import EventScores, score_events
from mmtpp.core.training.loss_sums import LossSums
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings

EVENT_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("time", pa.float64()),  # in the source's unit
        ("interval", pa.float64()),  # in the source's unit
        ("type", pa.int16()),
        ("previous_type", pa.int16()),
        # given the interval, as in ``targets.TARGET_SCHEMA``
        ("joint_predicted_type", pa.int16()),
        ("joint_type_nll", pa.float64()),  # nats
        # nats of the interval's code, a probability; ``time_nll`` of forecasts is a density
        ("interval_code_nll", pa.float64()),
        ("text_nll", pa.float64()),  # nats
    ]
)
"""One row for each event that is a target."""
WINDOW_SCHEMA = pa.schema(
    [
        # sums over all labels of the window, indexed by ``Modality``
        ("nll", pa.list_(pa.float64())),  # nats
        ("num_tokens", pa.list_(pa.float64())),
        ("num_events", pa.int64()),  # events that the window predicts, compressed or not
        ("targets", pa.list_(pa.struct(list(EVENT_SCHEMA)))),  # in order of time
    ]
)
"""One row for each window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowScorerSettings(ModelActorSettings):
    """Settings of ``WindowScorer``.

    Attributes:
        type_codes: Codes of the types that occur.
    """

    type_codes: tuple[int, ...]


class WindowScorer(ModelActor):
    """Scores the target events of windows.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: WindowScorerSettings) -> None:
        super().__init__(settings)
        self._codes = np.asarray(settings.type_codes, dtype=np.int16)
        type_ids = self.loaded.vocabulary.type_ids(settings.type_codes)
        self._type_ids = torch.tensor(type_ids, device=self.loaded.batcher.device)

    def process(self, sample: AssembledRow) -> pa.Table:
        """Score one window; the result is one row of ``WINDOW_SCHEMA``."""
        row = sample.row
        with torch.inference_mode():
            nll_N, best_type_N = self.loaded.model(self.loaded.batcher(row), self._type_ids)
        labels = row.label_positions()
        modality = row.modality[labels]
        nll = nll_N.double().cpu().numpy()
        best_type = best_type_N.cpu().numpy()
        scores = score_events(nll, modality, row.event[labels], best_type)
        losses = LossSums.from_labels(nll, modality)
        columns = {
            "nll": [losses.nll],
            "num_tokens": [losses.num_labels],
            "num_events": [int(sample.event_values("is_scored").sum())],
            "targets": self._score_targets(sample, scores),
        }
        return pa.table(columns, schema=WINDOW_SCHEMA)

    def _score_targets(self, sample: AssembledRow, scores: EventScores) -> pa.ListArray:
        """One list with the targets of a window, rows of ``EVENT_SCHEMA``."""
        row = sample.row
        is_target = row.event_is_target[scores.event]
        events = scores.event[is_target]
        segments = sample.event_values("segment")[events]
        columns = {
            "sequence_id": sample.sequence_ids.take(pa.array(segments)),
            "time": sample.event_values("time")[events],
            "interval": sample.event_values("interval")[events],
            "type": row.event_type[events],
            "previous_type": sample.event_values("previous_type")[events],
            "joint_predicted_type": self._codes[scores.predicted_type[is_target]],
            "interval_code_nll": scores.interval_code_nll[is_target],
            "joint_type_nll": scores.type_nll[is_target],
            "text_nll": scores.text_nll[is_target],
        }
        targets = pa.record_batch(columns, schema=EVENT_SCHEMA).to_struct_array()
        return pa.ListArray.from_arrays(pa.array([0, len(events)], pa.int32()), targets)
