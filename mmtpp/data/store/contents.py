"""The sequences of an event store as they were read, in memory, file after file."""

from collections.abc import Iterator

from mmtpp.core.events import EventSequence, Rejected
from mmtpp.core.split import SPLITS
from mmtpp.data.store.images import frame_name
from mmtpp.data.store.layout import REJECTED, SEQUENCES
from mmtpp.data.store.store_reader import StoredSequence, StoreReader, StoreSettings
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import join

_COLUMNS = ["part", "texts", "questions", "answers"]


def store_reader(uri: str, manifest: Manifest) -> StoreReader:
    """A reader without a cache."""
    folder = join(uri, manifest.data_folder)
    return StoreReader(StoreSettings(folder, manifest.fingerprint, manifest.image_px, 0, ""))


def stored_sequences(
    uri: str, manifest: Manifest, file: str
) -> Iterator[tuple[str, EventSequence]]:
    """Part and sequence of each in one file of a store; images are ``images.frame_name``s.

    A sequence that is cut in time comes once for each part that has events of it, with those alone.
    """
    for stored, sequence in whole_sequences(uri, manifest, file):
        for split in SPLITS:
            start, end = stored.span(split)
            if end - start == len(sequence):
                yield split, sequence
            elif start < end:
                yield split, sequence.slice(start, end)


def whole_sequences(
    uri: str, manifest: Manifest, file: str
) -> Iterator[tuple[StoredSequence, EventSequence]]:
    """Every sequence in one file of a store, as it lies there and as it was read."""
    stored = store_reader(uri, manifest).sequences([file])
    words = stored_words(uri, manifest, file)
    for each, (texts, questions) in zip(stored, words, strict=True):
        frames = each.events.frames.tolist()
        images = tuple(frame_name(uri, file, frame) if frame >= 0 else None for frame in frames)
        types = each.events.types
        yield (
            each,
            EventSequence(each.sequence_id, each.times, types, texts, images, questions),
        )


def stored_rejected(uri: str, manifest: Manifest, file: str) -> list[Rejected]:
    """Records that were refused when one file of a store was made."""
    if not manifest.events_rejected:
        return []
    table = read_table(join(uri, manifest.data_folder, REJECTED, file))
    return [Rejected(**row) for row in table.to_pylist()]


def all_rejected(uri: str, manifest: Manifest) -> Iterator[Rejected]:
    """Records that were refused when a store was made, without ``detail`` and ``record``."""
    if not manifest.events_rejected:
        return
    for file in store_reader(uri, manifest).files():
        table = read_table(join(uri, manifest.data_folder, REJECTED, file))
        for row in table.drop_columns(["detail", "record"]).to_pylist():
            yield Rejected(**row, detail="", record="")


def stored_words(
    uri: str, manifest: Manifest, file: str
) -> Iterator[tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]:
    """Texts and questions of each sequence in one file of a store."""
    table = read_table(join(uri, manifest.data_folder, SEQUENCES, file)).select(_COLUMNS)
    # long sequences stand in several rows
    texts: list[str] = []
    questions: tuple[tuple[str, str], ...] = ()
    for index, row in enumerate(table.to_pylist()):
        if row["part"] == 0:
            if index:
                yield tuple(texts), questions
            texts = []
            pairs = zip(row["questions"] or (), row["answers"] or (), strict=True)
            questions = tuple(pairs)
        texts += row["texts"]
    if len(table):
        yield tuple(texts), questions
