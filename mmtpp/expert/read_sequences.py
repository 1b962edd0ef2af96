"""Read whole sequences of a store for the expert: times, types and lengths of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.core.past_events import PastEvents
from mmtpp.data.samples.event_span import EventSpan, usable_events
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import StoredSequence
from mmtpp.expert.next_events import ScoredSequence


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """Which events are read, and which of them are scored.

    Attributes:
        samples: Store, split, time range, number of sequences and ``targets_delta``; windows,
            template and compression do not matter.
        type_codes: Codes of the types that the expert knows, in order.
        has_texts: Whether the lengths of texts are read; if not, they are 0.
    """

    samples: SampleSettings
    type_codes: tuple[int, ...]
    has_texts: bool


def read_sequences(settings: SequenceSettings) -> list[ScoredSequence]:
    """Read the sequences that have a scored event, in order of their ids.

    A sequence begins with its first event, also where the split or the time range begins later.

    Raises:
        DataError: A type is not among the expert's.
    """
    samples = settings.samples
    reader = StoreReader(samples.store)
    sequences: list[ScoredSequence] = []
    for sequence in reader.sequences(reader.files()):
        span = usable_events(sequence, samples.split, samples.time_range)
        is_target = _targets(sequence, span, samples.targets_delta)
        if is_target.any():
            past = past_events(
                sequence.times[: span.end],
                sequence.events.types[: span.end],
                np.diff(sequence.events.text_offsets)[: span.end],
                settings.type_codes,
                has_texts=settings.has_texts,
                where=f"{samples.store.data_uri}, sequence {sequence.sequence_id}",
            )
            sequences.append(ScoredSequence(sequence.sequence_id, past, is_target))
    sequences.sort(key=lambda sequence: sequence.sequence_id)
    return sequences[: samples.max_sequences or None]


def read_whole_sequences(settings: SequenceSettings) -> list[tuple[str, PastEvents]]:
    """Read all events of all sequences, with the names of the sequences, in order of their names.

    Raises:
        DataError: A type is not among the expert's.
    """
    reader = StoreReader(settings.samples.store)
    sequences = [
        (
            sequence.sequence_id,
            past_events(
                sequence.times,
                sequence.events.types,
                np.diff(sequence.events.text_offsets),
                settings.type_codes,
                has_texts=settings.has_texts,
                where=f"{settings.samples.store.data_uri}, sequence {sequence.sequence_id}",
            ),
        )
        for sequence in reader.sequences(reader.files())
        if len(sequence.times)
    ]
    return sorted(sequences, key=lambda pair: pair[0])


def past_events(
    times: NDArray[np.float64],
    types: NDArray[np.integer],
    text_lengths: NDArray[np.integer],
    type_codes: Sequence[int],
    *,
    has_texts: bool,
    where: str,
) -> PastEvents:
    """The events of one sequence, with indices of types instead of codes.

    Args:
        times: (E,) times in the source's unit.
        types: (E,) codes of the types.
        text_lengths: (E,) lengths of the texts, in tokens.
        type_codes: Codes of the types that the expert knows, in order.
        has_texts: Whether the lengths of texts are read; if not, they are 0.
        where: Location of the sequence, for the error.

    Raises:
        DataError: A type is not among the expert's.
    """
    index_of = np.full(256, -1)
    index_of[list(type_codes)] = np.arange(len(type_codes))
    index = index_of[types]
    if (index < 0).any():
        position = int(np.flatnonzero(index < 0)[0])
        raise DataError(
            f"event {position} has the type {types[position]}, which the expert does not know",
            where=where,
            cause="the type did not occur in the store that the expert was trained on",
        )
    lengths = text_lengths if has_texts else np.zeros_like(text_lengths)
    return PastEvents.from_sequence(times, index.astype(np.int16), lengths.astype(np.int32))


def _targets(sequence: StoredSequence, span: EventSpan, targets_delta: float) -> NDArray[np.bool_]:
    """(E,) whether each usable event is scored; the first event of a sequence never is."""
    positions = np.arange(span.end)
    is_target = positions >= max(1, span.first_target)
    if targets_delta:
        intervals = sequence.events.intervals[: span.end]
        gaps = np.abs(np.diff(intervals, prepend=np.inf))
        is_target &= ~(gaps < targets_delta)
    return is_target


def count_events(sequences: Sequence[ScoredSequence]) -> int:
    """Number of scored events."""
    return sum(int(sequence.is_target.sum()) for sequence in sequences)
