"""A plan: which events are in which sample, as a table in one Parquet file.

Axes: W windows, S samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mmtpp.core.training.sample_order import NO_REPLAY, Replay
from mmtpp.core.training.training_metrics import (
    COMPRESSED_FRACTION,
    EVENTS_PER_CONTEXT,
    TOKENS_PER_EVENT,
)
from mmtpp.data.samples.long_texts import LongTexts
from mmtpp.storage.cache import DiskCache
from mmtpp.storage.parquet import read_shared_table, write_table

# large: 32 bits cannot address the names of 10^8 windows
WINDOW_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.large_string()),
        # address of the sequence in the store
        ("file", pa.large_string()),
        ("group", pa.int32()),
        ("row", pa.int32()),
        # events of the sequence, from 0
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("first_scored", pa.int32()),
        ("num_tokens", pa.int32()),
        ("similar", pa.large_binary()),  # one bit per event, numpy.packbits
        # questions in words about the sequence, from 0, that are asked after this window; a window
        # with such questions has no other questions
        ("first_question", pa.int32()),
        ("end_question", pa.int32()),
        ("longest_text", pa.int32()),  # tokens; longer texts are cut; null cuts no text
    ]
)


_SHARED_WINDOWS = 2**18
"""The processes of a machine share the memory of larger plans, 25 MiB or more."""
# columns of the file besides those of the windows; earlier versions did not sort the windows
_SAMPLE, _PLACE = "sample", "place"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which events are in which sample.

    Attributes:
        windows: One row per window, ``WINDOW_SCHEMA``, one sample after the other.
        offsets: (S + 1,) row of the first window of each sample, and the number of windows.
        num_events: Number of events in the windows, scored or not, with those of overlaps.
        num_similar: Number of these events that are written as one token.
        fingerprint: Hash of settings and store.
        long_texts: Texts and questions that did not fit.
        replay: The last samples, which have older targets only, and the number of them that every
            epoch draws. All other samples are in every epoch.
    """

    windows: pa.Table
    offsets: NDArray[np.int64]
    num_events: int
    num_similar: int
    fingerprint: str
    long_texts: LongTexts = field(default_factory=LongTexts)
    replay: Replay = NO_REPLAY

    @property
    def num_samples(self) -> int:
        """Number of samples, S."""
        return len(self.offsets) - 1

    @property
    def num_visited(self) -> int:
        """Number of samples that are in every epoch."""
        return self.num_samples - self.replay.num_older

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples in one epoch."""
        return self.num_visited + self.replay.num_drawn

    def describe(self, max_tokens: int) -> str:
        """One line on how well the samples are filled."""
        tokens = int(np.sum(self.windows["num_tokens"].to_numpy()))
        fill = tokens / (self.num_samples * max_tokens)
        return (
            f"{self.num_samples:,} samples of {max_tokens} tokens from {len(self.windows):,} "
            f"windows, {fill:.1%} full; {self.num_events:,} events, "
            f"{self.num_similar:,} of them compressed"
        )

    def describe_replay(self) -> str:
        """One line on the targets of an epoch, new and older ones."""
        counts = self.replay_metrics()
        older, replayed = counts["data/older_targets"], counts["data/replayed_targets_per_epoch"]
        return (
            f"an epoch has {counts['data/new_targets']:,.0f} new targets in {self.num_visited:,} "
            f"samples, and about {replayed:,.0f} of {older:,.0f} older ones in "
            f"{self.replay.num_drawn:,} of {self.replay.num_older:,} samples; the other "
            f"{older - replayed:,.0f} are left out of it"
        )

    def metrics(self) -> dict[str, float]:
        """Compression and length of the samples, as metrics of a run."""
        tokens = float(np.sum(self.windows["num_tokens"].to_numpy()))
        return {
            "data/events": float(self.num_events),
            "data/samples": float(self.num_samples),
            COMPRESSED_FRACTION: self.num_similar / self.num_events,
            TOKENS_PER_EVENT: tokens / self.num_events,
            EVENTS_PER_CONTEXT: self.num_events / self.num_samples,
            **self.long_texts.metrics(),
            **(self.replay_metrics() if self.replay.num_older else {}),
        }

    def with_older(self, older: "Plan", *, replay: float) -> "Plan":
        """The plan with the samples of another plan, of which every epoch draws some.

        Events that both plans read, as history or as targets, are counted twice.

        Args:
            older: Plan of the older targets of the same sequences; it may have no sample.
            replay: Number of older targets in an epoch for each target of this plan, at least 0.
                An epoch draws whole samples: at least one if the number is above 0, and as many as
                have this number of targets on average.
        """
        num_older = older.num_samples
        num_drawn = 0
        if num_older and replay:
            wanted = replay * self.num_scored() / older.num_scored()
            num_drawn = min(num_older, max(1, round(wanted * num_older)))
        return replace(
            self,
            windows=pa.concat_tables([self.windows, older.windows]).combine_chunks(),
            offsets=np.append(self.offsets, len(self.windows) + older.offsets[1:]),
            num_events=self.num_events + older.num_events,
            num_similar=self.num_similar + older.num_similar,
            long_texts=LongTexts.sum([self.long_texts, older.long_texts]),
            replay=Replay(num_older, num_drawn),
        )

    def with_single_windows(self, rows: ArrayLike) -> "Plan":
        """A plan whose samples are some of the windows, one each.

        Args:
            rows: Rows of the windows in ``windows``, or whether each window is chosen.
        """
        rows = np.asarray(rows)
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        windows = self.windows.take(pa.array(chosen, pa.int64())).combine_chunks()
        return replace(self, windows=windows, offsets=np.arange(len(chosen) + 1))

    def num_scored(self, first_sample: int = 0) -> int:
        """Number of scored events in the samples from ``first_sample`` on."""
        windows = self.windows.slice(int(self.offsets[first_sample]))
        first, end = (windows[name].to_numpy() for name in ("first_scored", "end"))
        return int(np.sum(end - first))

    def replay_metrics(self) -> dict[str, float]:
        """Numbers of new targets, of older ones, and of older ones in an epoch, on average."""
        num_new, replay = self.num_visited, self.replay
        older = self.num_scored(num_new)
        return {
            "data/new_targets": float(self.num_scored() - older),
            "data/older_targets": float(older),
            "data/replayed_targets_per_epoch": older * replay.num_drawn / max(1, replay.num_older),
        }

    def save(self, uri: str) -> None:
        """Write the plan as one Parquet file."""
        sample_of = np.repeat(np.arange(self.num_samples), np.diff(self.offsets))
        table = self.windows.append_column(_SAMPLE, pa.array(sample_of))
        table = table.replace_schema_metadata(
            {
                "fingerprint": self.fingerprint,
                "num_events": str(self.num_events),
                "num_similar": str(self.num_similar),
                "long_texts": self.long_texts.as_json(),
                "num_older": str(self.replay.num_older),
                "num_drawn": str(self.replay.num_drawn),
            }
        )
        write_table(uri, table)


def load_plan(uri: str, open_cache: Callable[[], DiskCache | None] = lambda: None) -> Plan:
    """Read a plan that ``Plan.save`` wrote.

    Args:
        uri: Location of the file.
        open_cache: Opens the cache from which a large plan is mapped into memory, which the
            processes of a machine share. Without a cache, and if an earlier version wrote the
            plan, it is read into the memory of this process.

    Raises:
        StorageError: The file is missing.
    """
    table = read_shared_table(uri, open_cache, min_rows=_SHARED_WINDOWS)
    metadata = table.schema.metadata or {}
    if _PLACE in table.column_names:
        table = table.sort_by([(_SAMPLE, "ascending"), (_PLACE, "ascending")])
        table = table.drop_columns([_PLACE]).combine_chunks()
    return Plan(
        table.drop_columns([_SAMPLE]),
        _sample_offsets(table[_SAMPLE]),
        int(metadata[b"num_events"]),
        int(metadata[b"num_similar"]),
        metadata[b"fingerprint"].decode(),
        # plans of earlier versions do not count long texts
        LongTexts.from_json(metadata.get(b"long_texts", b'{"examples": []}')),
        # nor do they replay samples
        Replay(int(metadata.get(b"num_older", 0)), int(metadata.get(b"num_drawn", 0))),
    )


def _sample_offsets(sample_of: pa.ChunkedArray) -> NDArray[np.int64]:
    """(S + 1,) row of the first window of each sample, and the number of windows.

    Args:
        sample_of: (W,) sample of each window, not decreasing; every sample has a window.
    """
    offsets = np.zeros(sample_of[-1].as_py() + 2 if len(sample_of) else 1, dtype=np.int64)
    for part in sample_of.chunks:  # one after the other, because all together take much memory
        samples, counts = np.unique(part.to_numpy(), return_counts=True)
        offsets[samples + 1] += counts
    return np.cumsum(offsets, out=offsets)


def samples_table(plan: Plan, sample_ids: np.ndarray) -> pa.Table:
    """The input of ``Assembler`` for these samples, in this order."""
    starts, ends = plan.offsets[sample_ids], plan.offsets[sample_ids + 1]
    # slices: a table in many parts is copied whole by ``take``
    parts = [
        plan.windows.slice(start, end - start)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    taken = pa.concat_tables(parts or [plan.windows.slice(0, 0)]).combine_chunks()
    struct = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in taken.columns], names=taken.column_names
    )
    offsets = np.append(0, np.cumsum(ends - starts))
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)
    return pa.table({"sample_id": pa.array(sample_ids, pa.int64()), "windows": listed})
