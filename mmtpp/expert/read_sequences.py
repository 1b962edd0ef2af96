"""Read whole sequences of a store for the expert: times, types, texts and images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.core.events import MAX_TYPES, NO_FRAME, Events
from mmtpp.core.past.event_images import NO_IMAGE
from mmtpp.core.past.event_words import EventWords, TextSettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.compression import similar_intervals
from mmtpp.data.samples.event_span import EventSpan, usable_events
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import StoredSequence
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_images import read_images


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """Which events are read, and which of them are scored.

    Attributes:
        sample_settings: Store, split, time range, number of sequences and ``targets_delta``;
            windows, template and compression do not matter.
        type_codes: Codes of the types that the expert knows, in order.
        texts: What is read of texts.
        reads_images: Whether images are read.
    """

    sample_settings: SampleSettings
    type_codes: tuple[int, ...]
    texts: TextSettings
    reads_images: bool = False


def read_sequences(settings: SequenceSettings) -> list[ScoredSequence]:
    """Read the sequences that have a scored event, in order of their ids.

    A sequence begins with its first event, also where the split or the time range begins later.

    Raises:
        DataError: A type is not among the expert's.
    """
    sample_settings = settings.sample_settings
    reader = StoreReader(sample_settings.store)
    sequences: list[ScoredSequence] = []
    frames: dict[str, tuple[str, NDArray[np.int32]]] = {}
    for sequence in reader.sequences(reader.files(), with_text=settings.texts.num_words > 0):
        span = usable_events(sequence, sample_settings.split, sample_settings.time_range)
        is_target = _targets(sequence, span, sample_settings.targets_delta)
        if is_target.any():
            past = past_events(
                sequence.times[: span.end],
                sequence.events.slice(0, span.end),
                settings.type_codes,
                settings.texts,
                where=f"{sample_settings.store.data_uri}, sequence {sequence.sequence_id}",
            )
            sequences.append(ScoredSequence(sequence.sequence_id, past, is_target))
            if settings.reads_images:
                first_before = int(is_target.argmax()) - 1
                frames[sequence.sequence_id] = _frames_to_read(sequence, first_before, span.end)
    sequences.sort(key=lambda sequence: sequence.sequence_id)
    sequences = sequences[: sample_settings.max_sequences or None]
    if not settings.reads_images:
        return sequences
    images = read_images(
        reader,
        [frames[sequence.sequence_id] for sequence in sequences],
        image_px=sample_settings.store.image_px,
    )
    return [
        replace(sequence, past=replace(sequence.past, images=of_sequence))
        for sequence, of_sequence in zip(sequences, images, strict=True)
    ]


def read_whole_sequences(settings: SequenceSettings) -> list[tuple[str, PastEvents]]:
    """Read all events of all sequences, with the names of the sequences, in order of their names.

    Of the images, only those of the last two events of each sequence are read.

    Raises:
        DataError: A type is not among the expert's.
    """
    store = settings.sample_settings.store
    reader = StoreReader(store)
    sequences: list[tuple[str, PastEvents]] = []
    frames: list[tuple[str, NDArray[np.int32]]] = []
    for sequence in reader.sequences(reader.files(), with_text=settings.texts.num_words > 0):
        if num_events := len(sequence.times):
            past = past_events(
                sequence.times,
                sequence.events,
                settings.type_codes,
                settings.texts,
                where=f"{store.data_uri}, sequence {sequence.sequence_id}",
            )
            sequences.append((sequence.sequence_id, past))
            frames.append(_frames_to_read(sequence, num_events - 1, num_events))
    if settings.reads_images:
        images = read_images(reader, frames, image_px=store.image_px)
        sequences = [
            (name, replace(past, images=of_sequence))
            for (name, past), of_sequence in zip(sequences, images, strict=True)
        ]
    return sorted(sequences, key=lambda pair: pair[0])


def past_events(
    times: NDArray[np.float64],
    events: Events,
    type_codes: Sequence[int],
    texts: TextSettings,
    *,
    where: str,
) -> PastEvents:
    """The events of one sequence, with indices of types instead of codes.

    Args:
        times: (E,) times in the source's unit.
        events: The events, tokenised; without text ids if words are not read.
        type_codes: Codes of the types that the expert knows, in order.
        texts: What is read of texts.
        where: Location of the sequence, for the error.

    Raises:
        DataError: A type is not among the expert's.
    """
    index_of = np.full(MAX_TYPES, -1)
    index_of[list(type_codes)] = np.arange(len(type_codes))
    types = events.types
    index = index_of[types]
    if (index < 0).any():
        position = int(np.flatnonzero(index < 0)[0])
        raise DataError(
            f"event {position} has the type {types[position]}, which the expert does not know",
            where=where,
            cause="the type did not occur in the store that the expert was trained on",
        )
    offsets = events.text_offsets
    lengths = np.diff(offsets) if texts.has_lengths else np.zeros(len(types))
    words = None
    if texts.num_words:
        words = EventWords.from_tokens(events.text_ids, offsets, texts.num_words)
    return PastEvents.from_sequence(times, index.astype(np.int16), lengths.astype(np.int32), words)


def without_words(sequences: Sequence[ScoredSequence]) -> list[ScoredSequence]:
    """The sequences without the words of their texts."""
    return [replace(sequence, past=replace(sequence.past, words=None)) for sequence in sequences]


def has_images(sequences: Sequence[ScoredSequence]) -> bool:
    """Whether an event before a scored one has an image that is read."""
    return any(
        sequence.past.images is not None and bool((sequence.past.images.index != NO_IMAGE).any())
        for sequence in sequences
    )


def without_images(sequences: Sequence[ScoredSequence]) -> list[ScoredSequence]:
    """The sequences without their images."""
    return [replace(sequence, past=replace(sequence.past, images=None)) for sequence in sequences]


def _frames_to_read(
    sequence: StoredSequence, first: int, end: int
) -> tuple[str, NDArray[np.int32]]:
    """File of a sequence, and the (end,) frames of its events that are read.

    The frames of the other events are ``NO_FRAME``.

    Args:
        sequence: The sequence.
        first: First event whose images are read: its own, and that of the event before it.
        end: Number of events from the start of the sequence.
    """
    frames = sequence.events.frames[:end].copy()
    frames[: max(first - 1, 0)] = NO_FRAME
    return sequence.address.file, frames


def _targets(sequence: StoredSequence, span: EventSpan, targets_delta: float) -> NDArray[np.bool_]:
    """(E,) whether each usable event is scored; the first event of a sequence never is."""
    positions = np.arange(span.end)
    is_target = positions >= max(1, span.first_target)
    if targets_delta:
        intervals = sequence.events.intervals[: span.end]
        previous = np.concatenate([[np.inf], intervals[:-1]])
        is_target &= ~similar_intervals(intervals, previous, targets_delta)
    return is_target


def count_events(sequences: Sequence[ScoredSequence]) -> int:
    """Number of scored events."""
    return sum(int(sequence.is_target.sum()) for sequence in sequences)
