"""Encode: raw files to an event store. Everything costly, and nothing that depends on Delta.

    list files -> shards of files -> EncodeShard (Ray Data, anywhere in the cluster) -> manifest

Each shard reads its files, rejects bad records by cause, resizes images, tokenises each distinct
text once and writes one Parquet table of sequences and one of rejected records, and last its
counts. A shard's output name is a function of its input, so a repeated task overwrites its own
work, and a shard whose counts are there is finished: preparing again after a kill does the others
only. The manifest is written last by the driver; until then the store does not exist.
"""

import json
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from mmtpp.core.errors import DataError, MissingFileError, StorageError
from mmtpp.core.events import NO_FRAME, EventSequence, Rejected
from mmtpp.core.split import split_of
from mmtpp.data.layout import REJECTED_SCHEMA, SEQUENCE_SCHEMA, EncodeSettings
from mmtpp.data.progress import Progress
from mmtpp.data.sources.reader import MalformedFileError, read_file
from mmtpp.data.totals import Totals, digest, empty_counts, shard_counts
from mmtpp.model.processor import decode_image
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary, train_tokenizer
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import (
    exists,
    filesystem_of,
    join,
    join_inside,
    list_files,
    read_bytes,
    write_bytes,
)

logger = logging.getLogger(__name__)

ENCODE_VERSION = 2  # bump when the same input gives another output
FILES_PER_SHARD = 128
BYTES_PER_SHARD = 32 * 2**20
COUNTS_FOLDER = "counts"
ROWS_PER_GROUP = 16  # sequences in a Parquet row group, the unit of reading
IMAGE_CACHE_BYTES = 256 * 2**20  # of decoded images in each process
TOKENIZER_SAMPLE_FILES = 200


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """Outcome of ``encode``.

    Attributes:
        manifest: of the store.
        reused: True when the store was there already, made from the same input and settings.
        seconds: spent.
    """

    manifest: Manifest
    reused: bool
    seconds: float


def encode(
    settings: EncodeSettings,
    store_uri: str,
    *,
    vocabulary: Vocabulary | None,
    max_rejected_fraction: float,
) -> EncodeReport:
    """Prepare the event store of a source. Runs on the driver; the work is in Ray Data tasks.

    Args:
        settings: what to do.
        store_uri: where to; a finished store with the same input and settings is left as it is.
        vocabulary: of the base model; None trains a small tokenizer on the texts.
        max_rejected_fraction: fails above this share of rejected events.

    Raises:
        DataError: no files, a malformed file, no events, too many rejected, equal sequence ids.
        StorageError: source or store cannot be reached.
    """
    started = time.monotonic()
    reader = settings.reader()
    _, root = filesystem_of(settings.source_uri)
    files = [
        (info.path.removeprefix(root).lstrip("/"), info.size, info.mtime_ns)
        for info in list_files(settings.source_uri, reader.suffixes)
    ]
    if not files:
        raise DataError(
            f"no {' or '.join(reader.suffixes)} files",
            where=settings.source_uri,
            setting=f"source.kind = {settings.source_kind}, source.uri = {settings.source_uri}",
        )
    identity = [ENCODE_VERSION, asdict(settings), vocabulary.hash if vocabulary else ""]
    request = digest([*identity, files])
    existing = find_manifest(store_uri)
    if existing and existing.request == request:
        logger.info("the store is up to date, nothing to prepare: %s", store_uri)
        _check(existing, settings.source_uri, store_uri, max_rejected_fraction)
        return EncodeReport(existing, True, time.monotonic() - started)

    paths = [path for path, _, _ in files]
    if vocabulary is None:
        vocabulary = Vocabulary(_train_tokenizer(settings, paths))
    data_folder = f"data-{request[:16]}"
    write_bytes(join(store_uri, data_folder, TOKENIZER_FILE), vocabulary.tokenizer_json.encode())
    shards = _shards(files)
    finished = join(store_uri, data_folder, COUNTS_FOLDER)
    if exists(finished):
        count = len(list_files(finished, ".json"))
        logger.info("%d of %d shards were finished before", count, len(shards))
    encoded = ray.data.from_items(
        [{"shard": index, "paths": shard} for index, shard in enumerate(shards)],
        override_num_blocks=len(shards),
    ).map(
        EncodeShard,  # pyright: ignore[reportArgumentType] # a callable class, as Ray documents
        fn_constructor_args=(settings, join(store_uri, data_folder), vocabulary.tokenizer_json),
        # as many as the cluster has CPUs for, now or when the autoscaler has brought them
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(shards)),
    )
    totals = Totals()
    progress = Progress("prepare", total=len(files), unit="files")
    for row in encoded.iter_rows():
        if row["problem"]:
            raise DataError(row["problem"], where=settings.source_uri)
        totals.add(row)
        progress.advance(row["files"], f"{totals.counts['events_read']:,} events")
    progress.close()
    manifest = totals.manifest(settings, request, data_folder, vocabulary.hash)
    repeated = [name for name, count in totals.ids.items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} sequence ids occur more than once, {repeated[0]!r} is one",
            where=settings.source_uri,
            cause="the events of a sequence lie in several files, or two files have one name but "
            "for the suffix; put the events of a sequence into one file",
        )
    _check(manifest, settings.source_uri, store_uri, max_rejected_fraction)
    manifest.save(store_uri)
    return EncodeReport(manifest, False, time.monotonic() - started)


class EncodeShard:
    """Encodes the files of one shard; a Ray Data actor, one per process.

    Args:
        settings: what to do.
        folder: URI of the data folder to write to.
        tokenizer_json: of the vocabulary.
    """

    def __init__(self, settings: EncodeSettings, folder: str, tokenizer_json: str) -> None:
        self._settings = settings
        self._folder = folder
        self._vocabulary = Vocabulary(tokenizer_json)
        self._images: dict[str, bytes | str] = {}

    def __call__(self, row: dict) -> dict:
        """Encode one shard and say what was in it; ``problem`` is not empty on failure."""
        counts_uri = join(self._folder, COUNTS_FOLDER, f"{row['shard']:06d}.json")
        try:
            if exists(counts_uri):
                return json.loads(read_bytes(counts_uri))
            counts = self._encode(row)
            if not counts["problem"]:
                write_bytes(counts_uri, json.dumps(counts).encode())
            return counts
        except StorageError as error:  # Ray Data would wrap it beyond recognition
            return {**empty_counts(), "problem": str(error)}

    def _encode(self, row: dict) -> dict:
        settings = self._settings
        reader = settings.reader()
        paths = [str(path) for path in row["paths"]]
        with ThreadPoolExecutor(max_workers=8) as pool:
            contents = pool.map(lambda path: _read(settings.source_uri, path), paths)
            rows: list[dict] = []
            rejected: list[Rejected] = []
            num_read = num_reordered = num_disagreeing = 0
            for path, content in zip(paths, contents, strict=True):
                try:
                    if isinstance(content, str):
                        raise MalformedFileError(f"{path}: {content}")
                    parsed = read_file(reader, path, content, type_names=settings.type_names)
                except MalformedFileError as error:
                    if settings.malformed_file == "fail":
                        return {**empty_counts(), "problem": f"{error}\n  {_MALFORMED}"}
                    rejected.append(Rejected(path, -1, "malformed_file", str(error), ""))
                    num_read += 1  # its events cannot be counted: the file counts as one
                    continue
                num_read += parsed.num_read
                num_reordered += parsed.num_reordered
                num_disagreeing += parsed.num_disagreeing
                rejected += parsed.rejected
                for sequence in parsed.sequences:
                    kept, refused = self._without_bad_images(path, sequence, pool)
                    rejected += refused
                    if len(kept):
                        rows.append(self._row(kept))
        self._tokenise(rows)
        table = pa.Table.from_pylist(rows, SEQUENCE_SCHEMA)
        name = f"{row['shard']:06d}.parquet"
        _write_table(join(self._folder, "sequences", name), table)
        _write_table(
            join(self._folder, "rejected", name),
            pa.Table.from_pylist([asdict(record) for record in rejected], REJECTED_SCHEMA),
        )
        return shard_counts(
            table,
            rejected,
            num_read=num_read,
            num_reordered=num_reordered,
            num_disagreeing=num_disagreeing,
            num_files=len(paths),
        )

    def _without_bad_images(
        self, path: str, sequence: EventSequence, pool: ThreadPoolExecutor
    ) -> tuple[EventSequence, list[Rejected]]:
        """Load the images of a sequence into the cache; reject the events of unreadable ones."""
        wanted = sorted({image for image in sequence.images if image} - set(self._images))
        image_bytes = 3 * self._settings.image_px**2
        if (len(self._images) + len(wanted)) * image_bytes > IMAGE_CACHE_BYTES:
            self._images.clear()
            wanted = sorted({image for image in sequence.images if image})
        self._images.update(zip(wanted, pool.map(self._load_image, wanted), strict=True))
        rejected = []
        keep = np.ones(len(sequence), dtype=np.bool_)
        for index, image in enumerate(sequence.images):
            problem = self._images[image] if image else b""
            if isinstance(problem, str):
                keep[index] = False
                record = f"time {sequence.times[index]}, image {image}"
                rejected.append(Rejected(path, index, "unreadable_image", problem, record))
        if not rejected:
            return sequence, []
        kept = np.flatnonzero(keep)
        return (
            EventSequence(
                sequence.sequence_id,
                sequence.times[kept],
                sequence.types[kept],
                tuple(sequence.texts[index] for index in kept),
                tuple(sequence.images[index] for index in kept),
                sequence.questions,
            ),
            rejected,
        )

    def _load_image(self, image: str) -> bytes | str:
        settings = self._settings
        try:
            data = read_bytes(join_inside(settings.source_uri, image))
            return decode_image(
                data, image_px=settings.image_px, max_pixels=settings.max_image_pixels
            )
        except (DataError, MissingFileError) as error:
            return str(error)

    def _row(self, sequence: EventSequence) -> dict:
        """A sequence as a row of the store, its texts not tokenised yet."""
        frames: dict[bytes, int] = {}
        frame = []
        for image in sequence.images:
            data = self._images[image] if image else None
            assert not isinstance(data, str)  # events with unreadable images are gone
            frame.append(NO_FRAME if data is None else frames.setdefault(data, len(frames)))
        return {
            "sequence_id": sequence.sequence_id,
            "split": split_of(
                sequence.sequence_id,
                validation_fraction=self._settings.validation_fraction,
                test_fraction=self._settings.test_fraction,
            ),
            "times": sequence.times,
            "types": sequence.types,
            "texts": list(sequence.texts),
            "frame": frame,
            "frames": list(frames),
            "questions": [question for question, _ in sequence.questions],
            "answers": [answer for _, answer in sequence.questions],
        }

    def _tokenise(self, rows: list[dict]) -> None:
        """Add the token ids of all texts, each distinct text tokenised once."""
        unique = sorted({text for row in rows for text in row["texts"]})
        ids_of = dict(zip(unique, self._vocabulary.encode_texts(unique), strict=True))
        for row in rows:
            texts = [ids_of[text] for text in row["texts"]]
            row["text_ids"] = np.concatenate([np.array(ids, np.int32) for ids in texts])
            row["text_offsets"] = np.cumsum([0, *map(len, texts)])


_MALFORMED = (
    "likely cause: the file is damaged or of another kind\n"
    "  setting: source.malformed_file = fail; set it to reject to count such files and continue"
)


def _read(source_uri: str, path: str) -> bytes | str:
    """Content of an event file, or why it cannot be read; an unreachable store raises."""
    data = read_bytes(join(source_uri, path))
    return data or "the file is empty"


def _write_table(uri: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROWS_PER_GROUP, compression="zstd")
    write_bytes(uri, sink.getvalue().to_pybytes())


def _check(
    manifest: Manifest, source_uri: str, store_uri: str, max_rejected_fraction: float
) -> None:
    if manifest.events_read != manifest.events_kept + manifest.events_rejected:
        raise AssertionError(f"events do not add up: {manifest}")
    rejected_uri = join(store_uri, manifest.data_folder, "rejected")
    if manifest.events_kept == 0:
        raise DataError(
            f"no events left in {source_uri}: {manifest.rejected_by_cause}",
            where=f"rejected: {rejected_uri}",
        )
    fraction = manifest.events_rejected / manifest.events_read
    if fraction > max_rejected_fraction:
        raise DataError(
            f"{manifest.events_rejected} of {manifest.events_read} events were rejected: "
            f"{manifest.rejected_by_cause}",
            where=f"each with its cause and position: {rejected_uri}",
            setting=f"source.max_rejected_fraction = {max_rejected_fraction}",
        )


def _shards(files: Sequence[tuple[str, int, int]]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for path, num_bytes, _ in files:
        full = len(shards[-1]) >= FILES_PER_SHARD or size + num_bytes > BYTES_PER_SHARD
        if shards[-1] and full:
            shards.append([])
            size = 0
        shards[-1].append(path)
        size += num_bytes
    return shards


def _train_tokenizer(settings: EncodeSettings, paths: Sequence[str]) -> str:
    """Train on the texts of files spread evenly over the source."""
    reader = settings.reader()
    step = max(1, len(paths) // TOKENIZER_SAMPLE_FILES)
    sample = paths[::step][:TOKENIZER_SAMPLE_FILES]
    with ThreadPoolExecutor(max_workers=16) as pool:
        contents = list(pool.map(lambda path: _read(settings.source_uri, path), sample))
    texts: list[str] = []
    for path, content in zip(sample, contents, strict=True):
        if isinstance(content, bytes):
            try:
                parsed = read_file(reader, path, content, type_names=settings.type_names)
            except MalformedFileError:
                continue  # reported when its shard is encoded
            texts += [text for sequence in parsed.sequences for text in sequence.texts]
    logger.info(
        "training a tokenizer of %d entries on %d texts", settings.tokenizer_size, len(texts)
    )
    return train_tokenizer(texts, size=settings.tokenizer_size)
