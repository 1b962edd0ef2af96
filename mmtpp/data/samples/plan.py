"""A plan: which events are in which sample, as a small table in one Parquet file."""

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from mmtpp.core.training.sample_order import NO_REPLAY, Replay
from mmtpp.core.training.training_metrics import (
    COMPRESSED_FRACTION,
    EVENTS_PER_CONTEXT,
    TOKENS_PER_EVENT,
)
from mmtpp.data.samples.long_texts import LongTexts
from mmtpp.storage.parquet import read_table, write_table

WINDOW_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        # address of the sequence in the store
        ("file", pa.string()),
        ("group", pa.int32()),
        ("row", pa.int32()),
        # events of the sequence, from 0
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("first_scored", pa.int32()),
        ("num_tokens", pa.int32()),
        ("similar", pa.binary()),  # one bit per event, numpy.packbits
        # questions in words about the sequence, from 0, that are asked after this window; a window
        # with such questions has no other questions
        ("first_question", pa.int32()),
        ("end_question", pa.int32()),
        ("longest_text", pa.int32()),  # tokens; longer texts are cut; null cuts no text
    ]
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which events are in which sample.

    Attributes:
        windows: One row per window, ``WINDOW_SCHEMA``.
        samples: Indices of the windows of each sample.
        num_events: Number of events in the windows, scored or not, with those of overlaps.
        num_similar: Number of these events that are written as one token.
        fingerprint: Hash of settings and store.
        long_texts: Texts and questions that did not fit.
        replay: The last samples, which have older targets only, and the number of them that every
            epoch draws. All other samples are in every epoch.
    """

    windows: pa.Table
    samples: list[list[int]]
    num_events: int
    num_similar: int
    fingerprint: str
    long_texts: LongTexts = field(default_factory=LongTexts)
    replay: Replay = NO_REPLAY

    @property
    def num_visited(self) -> int:
        """Number of samples that are in every epoch."""
        return len(self.samples) - self.replay.num_older

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples in one epoch."""
        return self.num_visited + self.replay.num_drawn

    def describe(self, max_tokens: int) -> str:
        """One line on how well the samples are filled."""
        tokens = int(np.sum(self.windows["num_tokens"].to_numpy()))
        fill = tokens / (len(self.samples) * max_tokens)
        return (
            f"{len(self.samples):,} samples of {max_tokens} tokens from {len(self.windows):,} "
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
            "data/samples": float(len(self.samples)),
            COMPRESSED_FRACTION: self.num_similar / self.num_events,
            TOKENS_PER_EVENT: tokens / self.num_events,
            EVENTS_PER_CONTEXT: self.num_events / len(self.samples),
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
        num_windows, num_older = len(self.windows), len(older.samples)
        num_drawn = 0
        if num_older and replay:
            wanted = replay * self.num_targets(self.samples) / older.num_targets(older.samples)
            num_drawn = min(num_older, max(1, round(wanted * num_older)))
        shifted = [[num_windows + window for window in sample] for sample in older.samples]
        return replace(
            self,
            windows=pa.concat_tables([self.windows, older.windows]).combine_chunks(),
            samples=[*self.samples, *shifted],
            num_events=self.num_events + older.num_events,
            num_similar=self.num_similar + older.num_similar,
            long_texts=LongTexts.sum([self.long_texts, older.long_texts]),
            replay=Replay(num_older, num_drawn),
        )

    def num_targets(self, samples: list[list[int]]) -> int:
        """Number of scored events in samples of the plan."""
        windows = [window for sample in samples for window in sample]
        first, end = (self.windows[name].to_numpy() for name in ("first_scored", "end"))
        return int((end - first)[windows].sum())

    def replay_metrics(self) -> dict[str, float]:
        """Numbers of new targets, of older ones, and of older ones in an epoch, on average."""
        num_new, replay = self.num_visited, self.replay
        older = self.num_targets(self.samples[num_new:])
        return {
            "data/new_targets": float(self.num_targets(self.samples[:num_new])),
            "data/older_targets": float(older),
            "data/replayed_targets_per_epoch": older * replay.num_drawn / max(1, replay.num_older),
        }

    def save(self, uri: str) -> None:
        """Write the plan as one Parquet file."""
        sample_of = np.empty(len(self.windows), dtype=np.int64)
        order = np.empty(len(self.windows), dtype=np.int64)
        for index, windows in enumerate(self.samples):
            sample_of[windows] = index
            order[windows] = np.arange(len(windows))
        table = self.windows.append_column("sample", pa.array(sample_of))
        table = table.append_column("place", pa.array(order))
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


def load_plan(uri: str) -> Plan:
    """Read a plan that ``Plan.save`` wrote.

    Raises:
        StorageError: The file is missing.
    """
    table = read_table(uri)
    metadata = table.schema.metadata or {}
    sample_of, order = table["sample"].to_numpy(), table["place"].to_numpy()
    samples: list[list[int]] = [[] for _ in range(int(sample_of.max(initial=-1)) + 1)]
    for window in np.lexsort((order, sample_of)).tolist():
        samples[sample_of[window]].append(window)
    return Plan(
        table.drop_columns(["sample", "place"]).combine_chunks(),
        samples,
        int(metadata[b"num_events"]),
        int(metadata[b"num_similar"]),
        metadata[b"fingerprint"].decode(),
        # plans of earlier versions do not count long texts
        LongTexts.from_json(metadata.get(b"long_texts", b'{"examples": []}')),
        # nor do they replay samples
        Replay(int(metadata.get(b"num_older", 0)), int(metadata.get(b"num_drawn", 0))),
    )


def samples_table(plan: Plan, sample_ids: np.ndarray) -> pa.Table:
    """The input of ``Assembler`` for these samples, in this order."""
    windows = [plan.samples[sample] for sample in sample_ids.tolist()]
    flat = np.array([window for sample in windows for window in sample], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, windows)])
    taken = plan.windows.take(pa.array(flat)).combine_chunks()
    struct = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in taken.columns], names=taken.column_names
    )
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)
    return pa.table({"sample_id": pa.array(sample_ids, pa.int64()), "windows": listed})
