"""Examples of windows: their events, the compressed ones, and the model's attention.

Windows are chosen by how well their targets were forecast, from the easiest to the hardest.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME
from mmtpp.core.row import Row
from mmtpp.core.tasks import TASKS
from mmtpp.data.samples.actors import ActorPool, map_samples
from mmtpp.data.samples.plan import Plan
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address
from mmtpp.evaluate.model_actor import AssembledRow, ModelActor, ModelActorSettings
from mmtpp.model.processor import encode_image

DIFFICULTIES = {
    "easy": 0.05,
    "rather easy": 0.25,
    "typical": 0.5,
    "rather hard": 0.75,
    "hard": 0.95,
}
"""Quantiles of the mean NLL of a window's targets."""
MIN_TARGETS = 5
MAX_EVENTS = 150  # number of events of a window that are shown, the newest ones
MAX_FRAMES = 40  # number of images of a window that are shown, the newest ones
_SCORES = ("time_nll", "type_nll")
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


@dataclass(frozen=True, slots=True)
class Example:
    """The newest events of a window.

    Attributes:
        difficulty: A key of ``DIFFICULTIES``.
        sequence_id: Name of the window's sequence.
        start: Position of the first event within its sequence.
        times, intervals: (E,) times and intervals in the source's unit.
        types: (E,) codes of the types.
        texts: E texts, decoded by the tokenizer.
        similar: (E,) whether each event is compressed.
        frame: (E,) index into ``frames``, or ``NO_FRAME``.
        frames: JPEG files.
        attention: (E,) share of the attention that the question about the last event gives to the
            tokens of each event, averaged over heads and layers; NaN for the last event itself.
        attention_elsewhere: Share of all other tokens: the question itself, the beginning of the
            window, and older events.
        num_left_out: Number of distinct images that are not among ``frames``.
    """

    difficulty: str
    sequence_id: str
    start: int
    times: NDArray[np.float64]
    intervals: NDArray[np.float64]
    types: NDArray[np.int16]
    texts: tuple[str, ...]
    similar: NDArray[np.bool_]
    frame: NDArray[np.int32]
    frames: tuple[bytes, ...]
    attention: NDArray[np.float64]
    attention_elsewhere: float
    num_left_out: int


def read_examples(
    settings: ModelActorSettings, plan: Plan, targets: pa.Table, pool: ActorPool
) -> list[Example]:
    """Read the windows of the examples on the machines that have the model.

    Args:
        settings: Settings of the plan, whose questions are about time or type, and the model.
        plan: Plan of the evaluation.
        targets: ``targets.TARGET_SCHEMA`` of the plan.
        pool: Number and resources of the actors.

    Returns:
        One window of each difficulty in the order of ``DIFFICULTIES``, each window at most once.
    """
    difficulty_of = choose_windows(plan.windows, targets)
    if not difficulty_of:
        return []
    order = list(difficulty_of)
    chosen = replace(plan, samples=[[window] for window in order])
    examples: dict[int, Example] = {}
    for table in map_samples(chosen, ExampleReader, settings, pool, title="evaluate: examples"):
        for row in table.to_pylist():
            window = order[row.pop("window")]
            examples[window] = _example(difficulty_of[window], row)
    return [examples[window] for window in order]


def choose_windows(windows: pa.Table, targets: pa.Table) -> dict[int, str]:
    """Choose a window for each difficulty.

    Args:
        windows: Windows of a plan, ``plan.WINDOW_SCHEMA``.
        targets: ``targets.TARGET_SCHEMA`` of the plan.

    Returns:
        The difficulty of each chosen window by the window's index, in the order of
        ``DIFFICULTIES``.
    """
    scores = [
        targets[name].to_numpy().astype(np.float64)
        for name in _SCORES
        if targets[name].null_count < len(targets)
    ]
    if not scores:
        return {}
    nll = np.nansum(scores, axis=0)
    sequence = targets["sequence_id"].to_numpy(zero_copy_only=False)
    position = targets["position"].to_numpy()
    distinct, codes = np.unique(sequence, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))[:-1]
    targets_of = dict(zip(distinct.tolist(), np.split(order, ends), strict=True))
    means: dict[int, float] = {}
    names = windows["sequence_id"].to_pylist()
    spans = zip(names, windows["first_scored"].to_pylist(), windows["end"].to_pylist(), strict=True)
    for window, (name, first, end) in enumerate(spans):
        rows = targets_of.get(name, order[:0])
        is_inside = (position[rows] >= first) & (position[rows] < end)
        rows = rows[is_inside & np.isfinite(nll[rows])]
        if len(rows) >= MIN_TARGETS:
            means[window] = float(nll[rows].mean())
    if not means:
        return {}
    by_mean = sorted(means, key=means.__getitem__)
    chosen: dict[int, str] = {}
    for difficulty, level in DIFFICULTIES.items():
        chosen.setdefault(by_mean[round(level * (len(by_mean) - 1))], difficulty)
    return chosen


def _example(difficulty: str, row: dict) -> Example:
    dtypes = {
        "times": np.float64,
        "intervals": np.float64,
        "types": np.int16,
        "similar": np.bool_,
        "frame": np.int32,
        "attention": np.float64,
    }
    for name, dtype in dtypes.items():
        row[name] = np.array(row[name], dtype=dtype)
    return Example(
        difficulty, **{**row, "texts": tuple(row["texts"]), "frames": tuple(row["frames"])}
    )


class ExampleReader(ModelActor):
    """Reads windows and the model's attention over them; each sample is one window.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: ModelActorSettings) -> None:
        super().__init__(settings)
        self._store = StoreReader(settings.assemble.store)

    def process(self, sample: AssembledRow) -> pa.Table:
        """Read one window, ``_SCHEMA``."""
        [window] = sample.windows
        start, end = max(window["start"], window["end"] - MAX_EVENTS), window["end"]
        num_skipped = start - window["start"]
        stored = self._store.events(
            Address(window["file"], window["group"], window["row"]), start, end
        )
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
                encode_image(pixels, image_px=self._image_px, kind="JPEG") for _, pixels in images
            ],
            "attention": attention,
            "attention_elsewhere": elsewhere,
            "num_left_out": len(distinct) - len(shown),
        }
        return pa.Table.from_pylist([row], _SCHEMA)

    def _attention(
        self, row: Row, num_events: int, num_skipped: int
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
