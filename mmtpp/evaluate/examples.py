"""A few windows as examples: their events, the compressed ones, and the model's attention.

Windows are chosen by how well their targets were forecast, from the easiest to the hardest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.config.schema import RunConfig
from mmtpp.core.events import NO_FRAME
from mmtpp.core.row import Row
from mmtpp.core.tasks import TASKS
from mmtpp.data.samples.actors import iter_samples
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.store.store_reader import Address, StoreReader
from mmtpp.model.loaded import LoadedModel, ModelSource
from mmtpp.model.processor import encode_image

RANKS = {"easy": 0.05, "rather easy": 0.25, "typical": 0.5, "rather hard": 0.75, "hard": 0.95}
"""Quantiles of the mean NLL of a window's targets."""
MIN_TARGETS = 5
MAX_EVENTS = 150  # of a window, the newest
MAX_FRAMES = 40  # of a window; others are left out of the page
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
        rank: A key of ``RANKS``.
        sequence_id: Name of the window's sequence.
        start: Position of the first event within its sequence.
        times, intervals: (E,) in the source's unit.
        types: (E,) codes.
        texts: E texts, decoded by the tokenizer.
        similar: (E,) whether each event is compressed.
        frame: (E,) index into ``frames``, or ``NO_FRAME``.
        frames: JPEG files.
        attention: (E,) share of the attention that the question about the last event gives to the
            tokens of each event, the mean of heads and layers; NaN for the last event itself.
        attention_elsewhere: Share of all other tokens: the question itself, the beginning of the
            window, and older events.
        num_left_out: Number of distinct images that are not among ``frames``.
    """

    rank: str
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
    config: RunConfig,
    settings: AssembleSettings,
    source: ModelSource,
    plan: Plan,
    targets: pa.Table,
) -> list[Example]:
    """Read the windows of the examples on the machines that have the model.

    Args:
        config: Settings of the job.
        settings: The settings that the plan was made with; time or type are asked.
        source: Where the model is loaded from.
        plan: Plan of the evaluation.
        targets: ``targets.TARGET_SCHEMA`` of the plan.

    Returns:
        One window of each rank in the order of ``RANKS``, each window once.
    """
    chosen = choose_windows(plan.windows, targets)
    if not chosen:
        return []
    few = replace(plan, samples=[[window] for window in chosen])
    order = list(chosen)
    found: dict[int, Example] = {}
    found_by = iter_samples(
        config, few, ExampleReader, (settings, source), title="evaluate: examples"
    )
    for table in found_by:
        for row in table.to_pylist():
            window = order[row.pop("window")]
            found[window] = _example(chosen[window], row)
    return [found[window] for window in order]


def choose_windows(windows: pa.Table, targets: pa.Table) -> dict[int, str]:
    """The rank of each window that is chosen, by its index, in the order of ``RANKS``."""
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
        own = targets_of.get(name, order[:0])
        own = own[(position[own] >= first) & (position[own] < end) & np.isfinite(nll[own])]
        if len(own) >= MIN_TARGETS:
            means[window] = float(nll[own].mean())
    if not means:
        return {}
    by_mean = sorted(means, key=means.__getitem__)
    chosen: dict[int, str] = {}
    for rank, level in RANKS.items():
        chosen.setdefault(by_mean[round(level * (len(by_mean) - 1))], rank)
    return chosen


def _example(rank: str, row: dict) -> Example:
    arrays = {
        "times": np.float64,
        "intervals": np.float64,
        "types": np.int16,
        "similar": np.bool_,
        "frame": np.int32,
        "attention": np.float64,
    }
    for name, kind in arrays.items():
        row[name] = np.array(row[name], dtype=kind)
    return Example(rank, **{**row, "texts": tuple(row["texts"]), "frames": tuple(row["frames"])})


class ExampleReader:
    """Reads windows and the model's attention over them: a Ray Data actor.

    Args:
        settings: The settings that the plan was made with.
        source: Where the model is loaded from.
    """

    def __init__(self, settings: AssembleSettings, source: ModelSource) -> None:
        self._loaded = LoadedModel.of(source, image_px=settings.image_px)
        self._assembler = Assembler(settings, self._loaded.token_ids)
        self._store = StoreReader(settings.store)
        self._image_px = settings.image_px

    def __call__(self, samples: pa.Table) -> pa.Table:
        """One row a window, ``_SCHEMA``."""
        return pa.Table.from_pylist(list(self._rows(samples)), _SCHEMA)

    def _rows(self, samples: pa.Table) -> Iterator[dict[str, object]]:
        assembled = self._assembler(samples)
        planned = zip(samples["sample_id"].to_pylist(), samples["windows"].to_pylist(), strict=True)
        for index, (sample, [window]) in enumerate(planned):
            start, end = max(window["start"], window["end"] - MAX_EVENTS), window["end"]
            skip = start - window["start"]
            address = Address(window["file"], window["group"], window["row"])
            stored = self._store.events(address, start, end)
            events = stored.events
            bits = np.frombuffer(window["similar"], dtype=np.uint8)
            similar = np.unpackbits(bits, count=end - window["start"])[skip:].astype(np.bool_)
            distinct = list(dict.fromkeys(events.frames[events.frames != NO_FRAME].tolist()))
            shown = distinct[-MAX_FRAMES:]
            place = {frame: at for at, frame in enumerate(shown)}
            frames = self._store.frames(window["file"], np.array(shown, dtype=np.int64))
            row = row_from_arrow(assembled, index, image_px=self._image_px)
            attention, elsewhere = self._attention(row, end - window["start"], skip)
            offsets = events.text_offsets.tolist()
            yield {
                "window": sample,
                "sequence_id": window["sequence_id"],
                "start": start,
                "times": stored.times,
                "intervals": events.intervals,
                "types": events.types,
                "texts": [
                    self._loaded.vocabulary.decode_text(events.text_ids[low:high].tolist())
                    for low, high in pairwise(offsets)
                ],
                "similar": similar,
                "frame": [place.get(frame, NO_FRAME) for frame in events.frames.tolist()],
                "frames": [
                    encode_image(pixels, image_px=self._image_px, kind="JPEG")
                    for _, pixels in frames
                ],
                "attention": attention,
                "attention_elsewhere": elsewhere,
                "num_left_out": len(distinct) - len(shown),
            }

    def _attention(self, row: Row, num_events: int, skip: int) -> tuple[NDArray[np.float64], float]:
        """Of the last question about time, or else type, to the events after the skipped ones."""
        assert row.questions is not None
        asked = row.questions.task
        task = TASKS["time"] if (asked == TASKS["time"]).any() else TASKS["type"]
        last = int(np.flatnonzero(asked == task)[-1])
        plain = row.before_question(
            last, image_pad=self._loaded.token_ids.image_pad, with_question=True
        )
        weights = self._loaded.model.attention_of_last(self._loaded.batcher(plain))
        mean = weights.mean(dim=0).double().cpu().numpy()
        target = int(row.questions.event[last])
        is_before = (plain.event >= skip) & (plain.event < target)
        counted = np.bincount(plain.event[is_before], mean[is_before], num_events)
        of_event = counted[skip:].astype(np.float64)
        of_event[max(0, target - skip) :] = np.nan
        return of_event, float(mean[~is_before].sum())
