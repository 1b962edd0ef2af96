"""Scoring held-out windows with a trained model: a Ray Data actor, on a GPU when there is one."""

import numpy as np
import pyarrow as pa
import torch

from mmtpp.core.event_scores import score_events
from mmtpp.core.loss_sums import LossSums
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.model.loaded import LoadedModel, ModelSource

EVENT_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("time", pa.float64()),  # source unit
        ("interval", pa.float64()),  # source unit
        ("type", pa.int16()),
        ("previous_type", pa.int16()),
        # given the interval, as in ``targets.TARGET_SCHEMA``
        ("joint_predicted_type", pa.int16()),
        ("joint_type_nll", pa.float64()),  # nats
        # nats of the interval's code, a probability; ``time_nll`` of forecasts is a density
        ("interval_code_nll", pa.float64()),
        ("text_nll", pa.float64()),  # nats
        # losses of the whole window, on its first event only
        ("window_nll", pa.list_(pa.float64())),
        ("window_tokens", pa.list_(pa.float64())),
        ("window_events", pa.int64()),
    ]
)


class WindowScorer:
    """Assembles windows and scores their target events.

    Args:
        settings: what the plan was made with.
        source: of the model.
        type_codes: types that occur.
    """

    def __init__(
        self, settings: AssembleSettings, source: ModelSource, type_codes: list[int]
    ) -> None:
        self._loaded = loaded = LoadedModel.of(source, image_px=settings.image_px)
        self._assembler = Assembler(settings, loaded.token_ids)
        self._image_px = settings.image_px
        self._codes = np.asarray(type_codes, dtype=np.int16)
        type_ids = loaded.vocabulary.type_ids(type_codes)
        self._type_ids = torch.tensor(type_ids, device=loaded.batcher.device)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Score windows, ``EVENT_SCHEMA``; a window without targets gives a row without event."""
        assembled = self._assembler(samples)
        tables = [self._score(assembled, index) for index in range(len(assembled))]
        return pa.concat_tables(tables)

    def _score(self, assembled: pa.Table, index: int) -> pa.Table:
        row = row_from_arrow(assembled, index, image_px=self._image_px)
        with torch.inference_mode():
            nll_N, best_type_N = self._loaded.model(self._loaded.batcher(row), self._type_ids)
        labels = row.label_positions()
        modality = row.modality[labels]
        nll = nll_N.double().cpu().numpy()
        best = best_type_N.cpu().numpy()
        result = score_events(nll, modality, row.event[labels], best)
        target = row.event_is_target[result.event]
        events = result.event[target]
        losses = LossSums.from_labels(nll, modality)
        predicted = int(_values(assembled, "event_is_scored", index).sum())
        count = len(events)
        if count == 0:
            empty = {
                "window_nll": losses.nll.tolist(),
                "window_tokens": losses.tokens.tolist(),
                "window_events": predicted,
            }
            return pa.Table.from_pylist([empty], EVENT_SCHEMA)
        segments = _values(assembled, "event_segment", index)[events]
        columns = {
            "sequence_id": assembled["sequences"][index].values.take(pa.array(segments)),
            "time": _values(assembled, "event_time", index)[events],
            "interval": _values(assembled, "event_interval", index)[events],
            "type": row.event_type[events],
            "previous_type": _values(assembled, "event_previous_type", index)[events],
            "joint_predicted_type": self._codes[result.predicted_type[target]],
            "interval_code_nll": result.interval_code_nll[target],
            "joint_type_nll": result.type_nll[target],
            "text_nll": result.text_nll[target],
            "window_nll": [losses.nll if place == 0 else None for place in range(count)],
            "window_tokens": [losses.tokens if place == 0 else None for place in range(count)],
            "window_events": [predicted if place == 0 else None for place in range(count)],
        }
        return pa.table(columns, schema=EVENT_SCHEMA)


def _values(table: pa.Table, name: str, index: int) -> np.ndarray:
    return table[name][index].values.to_numpy(zero_copy_only=False)
