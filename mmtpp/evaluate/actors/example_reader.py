"""Read windows and the attention over them: a Ray Data actor, on a GPU where there is one."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import TASKS
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address
from mmtpp.evaluate.example import MAX_EVENTS
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.model.processor import encode_image

MAX_FRAMES = 40  # number of images of a window that are shown, the newest ones
_SCHEMA = pa.schema(
    [
        ("window", pa.int64()),
        ("sequence_id", pa.string()),
        ("start", pa.int64()),
        ("times", pa.list_(pa.float64())),
        ("intervals", pa.list_(pa.float64())),
        ("types", pa.list_(pa.int16())),
        ("texts", pa.list_(pa.string())),
        ("similar", pa.list_(pa.bool_())),
        ("frame", pa.list_(pa.int32())),
        ("frames", pa.list_(pa.binary())),
        ("attention", pa.list_(pa.float64())),
        ("attention_elsewhere", pa.float64()),
        ("num_left_out", pa.int64()),
    ]
)


class ExampleReader(ModelActor):
    """Reads windows and the model's attention over them; each sample is one window.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: ModelActorSettings) -> None:
        super().__init__(settings)
        self._store = StoreReader(settings.sample_settings.store)

    def process(self, sample: AssembledRow) -> pa.Table:
        """Read one window, ``_SCHEMA``."""
        [window] = sample.windows
        start, end = max(window["start"], window["end"] - MAX_EVENTS), window["end"]
        num_skipped = start - window["start"]
        stored = self._store.events(Address.from_window(window), start, end)
        events = stored.events
        bits = np.frombuffer(window["similar"], dtype=np.uint8)
        similar = np.unpackbits(bits, count=end - window["start"])[num_skipped:].astype(np.bool_)
        distinct = list(dict.fromkeys(events.frames[events.frames != NO_FRAME].tolist()))
        shown = distinct[-MAX_FRAMES:]
        index_of = {frame: index for index, frame in enumerate(shown)}
        images = self._store.frames(window["file"], np.array(shown, dtype=np.int64))
        attention, elsewhere = self._attention(sample.row, end - window["start"], num_skipped)
        row = {
            "window": sample.row.sample_id,
            "sequence_id": window["sequence_id"],
            "start": start,
            "times": stored.times,
            "intervals": events.intervals,
            "types": events.types,
            "texts": [
                self.loaded.vocabulary.decode_text(events.text_ids[low:high].tolist())
                for low, high in pairwise(events.text_offsets.tolist())
            ],
            "similar": similar,
            "frame": [index_of.get(frame, NO_FRAME) for frame in events.frames.tolist()],
            "frames": [
                encode_image(pixels, image_px=self._image_px, file_format="JPEG")
                for _, pixels in images
            ],
            "attention": attention,
            "attention_elsewhere": elsewhere,
            "num_left_out": len(distinct) - len(shown),
        }
        return pa.Table.from_pylist([row], _SCHEMA)

    def _attention(
        self, row: PackedRow, num_events: int, num_skipped: int
    ) -> tuple[NDArray[np.float64], float]:
        """Attention of the last question about time, or about type where times are not forecast.

        Returns:
            The share of each event after the skipped ones, and the share of all other tokens.
        """
        assert row.questions is not None
        tasks = row.questions.task
        task = TASKS["time"] if (tasks == TASKS["time"]).any() else TASKS["type"]
        last = int(np.flatnonzero(tasks == task)[-1])
        image_pad = self.loaded.token_ids.image_pad
        plain = row.before_question(last, image_pad=image_pad, with_question=True)
        weights = self.loaded.model.last_token_attention(self.loaded.batcher(plain))
        mean = weights.mean(dim=0).double().cpu().numpy()
        target = int(row.questions.event[last])
        is_before = (plain.event >= num_skipped) & (plain.event < target)
        sums = np.bincount(plain.event[is_before], mean[is_before], num_events)
        shares = sums[num_skipped:].astype(np.float64)
        shares[max(0, target - num_skipped) :] = np.nan
        return shares, float(mean[~is_before].sum())
