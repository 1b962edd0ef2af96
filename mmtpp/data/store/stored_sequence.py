"""The sequences of a store's file, and their addresses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmtpp.core.events import Events, intervals_from_times
from mmtpp.core.split import events_of_split
from mmtpp.data.store.layout import CUT_COLUMNS, EVENT_COLUMNS, QUESTION_COLUMNS
from mmtpp.data.store.questions import AskedQuestion, read_questions
from mmtpp.storage.parquet import list_offsets, list_values


@dataclass(frozen=True, slots=True)
class Address:
    """The place where a sequence begins.

    Attributes:
        file: File name in the store.
        group: Row group of the file.
        row: Row of the row group.
    """

    file: str
    group: int
    row: int

    @classmethod
    def from_window(cls, window: Mapping[str, Any]) -> "Address":
        """The address of a window's sequence.

        Args:
            window: A row of a plan.
        """
        return cls(window["file"], window["group"], window["row"])


@dataclass(frozen=True, slots=True)
class StoredSequence:
    """A whole sequence of a store, without its images.

    Attributes:
        address: Place where the sequence begins.
        sequence_id: Id of the sequence.
        split: Split of the sequence; ``time`` if the sequence is cut in time.
        times: (E,) float64 times, in the source's unit.
        events: Tokenised events, none marked as similar. The text ids are empty unless the reader
            was asked for them; the text offsets are always there.
        questions: Questions about the sequence; empty unless the reader was asked for them.
        cuts: Times at which validation and test begin, if the sequence is cut in time.
    """

    address: Address
    sequence_id: str
    split: str
    times: NDArray[np.float64]
    events: Events
    questions: tuple[AskedQuestion, ...] = ()
    cuts: tuple[float, float] = (np.inf, np.inf)

    def span(self, split: str) -> tuple[int, int]:
        """Find the events that belong to a split.

        Args:
            split: ``train``, ``validation``, ``test`` or ``all``.

        Returns:
            The index of the first event and the index after the last; equal if no event belongs to
            the split. When a held-out split is scored, earlier events are known and not scored.
        """
        return events_of_split(self.split, split, self.times, self.cuts)


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """Consecutive events of a stored sequence.

    Attributes:
        times: (E,) float64 times, in the source's unit.
        previous_type: (E,) int16 type of the event before; the first event of a sequence has its
            own type.
        previous_interval: (E,) float64 interval of the event before; infinite for the first event
            of a sequence.
        events: Tokenised events, none marked as similar.
    """

    times: NDArray[np.float64]
    previous_type: NDArray[np.int16]
    previous_interval: NDArray[np.float64]
    events: Events


def sequences_in_table(
    file: str, table: pa.Table, metadata: pq.FileMetaData
) -> Iterator[StoredSequence]:
    """Iterate over the sequences of a file.

    Args:
        file: File name in the store.
        table: Rows of the file, one chunk per column. The columns ``text_ids`` and
            ``QUESTION_COLUMNS`` may be missing.
        metadata: Metadata of the file, with the sizes of its row groups.
    """
    group_sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    groups = np.repeat(np.arange(len(group_sizes)), group_sizes)
    first_rows = (np.cumsum(group_sizes) - group_sizes)[groups] if group_sizes else groups
    heads = np.flatnonzero(table["part"].to_numpy() == 0)
    event_edges = list_offsets(table, "times")[[*heads, len(table)]]
    columns = {
        name: list_values(table, name) for name in table.column_names if name in EVENT_COLUMNS
    }
    questions: list[tuple[AskedQuestion, ...]] = [()] * len(heads)
    if QUESTION_COLUMNS[0] in table.column_names:
        questions = read_questions(table.take(heads))
    text_offsets = np.append(0, np.cumsum(columns["text_lengths"], dtype=np.int64))
    text_ids = columns.get("text_ids", np.zeros(0, dtype=np.int32))
    sequence_ids, splits = table["sequence_id"].take(heads), table["split"].take(heads)
    cuts = np.stack([table[name].take(heads).to_numpy() for name in CUT_COLUMNS], axis=1)
    for index, (head, sequence_id, split) in enumerate(
        zip(heads.tolist(), sequence_ids.to_pylist(), splits.to_pylist(), strict=True)
    ):
        start, end = int(event_edges[index]), int(event_edges[index + 1])
        times = columns["times"][start:end]
        offsets = text_offsets[start : end + 1]
        yield StoredSequence(
            address=Address(file, int(groups[head]), head - int(first_rows[head])),
            sequence_id=sequence_id,
            split=split,
            times=times,
            events=Events(
                intervals=intervals_from_times(times),
                types=columns["types"][start:end],
                text_ids=text_ids[offsets[0] : offsets[-1]],
                text_offsets=offsets - offsets[0],
                frames=columns["frame"][start:end],
                similar=np.zeros(end - start, dtype=np.bool_),
                times=times,
            ),
            questions=questions[index],
            cuts=(float(cuts[index, 0]), float(cuts[index, 1])),
        )
