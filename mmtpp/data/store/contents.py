"""The contents of a store's files: sequences, texts, questions and rejected records."""

from collections.abc import Iterator

from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.split import SPLITS
from mmtpp.data.store.images import frame_name
from mmtpp.data.store.layout import REJECTED, SEQUENCES
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.data.store.stored_sequence import StoredSequence
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import join

_TEXT_COLUMNS = ["part", "texts", "questions", "answers"]


def open_store(uri: str, manifest: Manifest) -> StoreReader:
    """Open a store without a disk cache.

    Args:
        uri: Location of the store.
        manifest: Manifest of the store.
    """
    folder = join(uri, manifest.data_folder)
    return StoreReader(StoreSettings(folder, manifest.fingerprint, manifest.image_px))


def iterate_split_sequences(
    uri: str, manifest: Manifest, file: str
) -> Iterator[tuple[str, EventSequence]]:
    """Iterate over the sequences of a file, with their splits.

    A sequence that is cut in time comes once for each split that has events of the sequence, with
    only these events.

    Args:
        uri: Location of the store.
        manifest: Manifest of the store.
        file: File name in the store.

    Yields:
        Split and sequence. Images are names for ``load_image``.
    """
    for stored, sequence in iterate_whole_sequences(uri, manifest, file):
        for split in SPLITS:
            start, end = stored.span(split)
            if end - start == len(sequence):
                yield split, sequence
            elif start < end:
                yield split, sequence.slice(start, end)


def iterate_whole_sequences(
    uri: str, manifest: Manifest, file: str
) -> Iterator[tuple[StoredSequence, EventSequence]]:
    """Iterate over the sequences of a file.

    Args:
        uri: Location of the store.
        manifest: Manifest of the store.
        file: File name in the store.

    Yields:
        The sequence as stored, and the sequence as it was read from the source.
    """
    stored_sequences = open_store(uri, manifest).sequences([file])
    texts_and_questions = iterate_texts_and_questions(uri, manifest, file)
    for stored, (texts, questions) in zip(stored_sequences, texts_and_questions, strict=True):
        frames = stored.events.frames.tolist()
        images = tuple(frame_name(uri, file, frame) if frame >= 0 else None for frame in frames)
        yield (
            stored,
            EventSequence(
                stored.sequence_id, stored.times, stored.events.types, texts, images, questions
            ),
        )


def iterate_texts_and_questions(
    uri: str, manifest: Manifest, file: str
) -> Iterator[tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]:
    """Iterate over the texts of each sequence of a file, and the questions with their answers."""
    table = read_table(join(uri, manifest.data_folder, SEQUENCES, file)).select(_TEXT_COLUMNS)
    texts: list[str] = []
    questions: tuple[tuple[str, str], ...] = ()
    for index, row in enumerate(table.to_pylist()):  # a long sequence has several rows
        if row["part"] == 0:
            if index:
                yield tuple(texts), questions
            texts = []
            questions = tuple(zip(row["questions"] or (), row["answers"] or (), strict=True))
        texts += row["texts"]
    if len(table):
        yield tuple(texts), questions


def read_rejected_records(uri: str, manifest: Manifest, file: str) -> list[Rejected]:
    """Read the records that were rejected when a file of a store was written."""
    if not manifest.events_rejected:
        return []
    table = read_table(join(uri, manifest.data_folder, REJECTED, file))
    return [Rejected(**row) for row in table.to_pylist()]


def iterate_rejected_records(uri: str, manifest: Manifest) -> Iterator[Rejected]:
    """Iterate over the rejected records of all files, with empty ``detail`` and ``record``."""
    if not manifest.events_rejected:
        return
    for file in open_store(uri, manifest).files():
        table = read_table(join(uri, manifest.data_folder, REJECTED, file))
        for row in table.drop_columns(["detail", "record"]).to_pylist():
            yield Rejected(**row, detail="", record="")
