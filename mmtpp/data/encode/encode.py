"""Encode raw event files into an event store: all costly work, and nothing that depends on Delta.

    list files -> shards of files
    CopyShard     copy a shard of the present store that is the same now     a task: a shard
    ReadShard     parse, check, tokenise each distinct text once             a task: 16 MiB of files
    DecodeImages  read and resize each image once, drop duplicates           a task: 256 images
    FinishShard   point events to frames, reject events of unreadable images a task: a shard
    manifest

Where the events of a sequence lie in several files, two steps replace ``ReadShard``:

    PartitionShard  parse, check; write pieces of sequences by partition     a task: 16 MiB of files
    JoinPartition   join the pieces of each sequence, tokenise               a task: a partition

The store keeps the pieces: ``CopyPieces`` copies those of unchanged shards of files, and
``CopyShard`` the partitions that get no new piece.

Each step is a Ray Data job whose tasks run anywhere in the cluster. The output of a task depends
only on its input. A task writes its files completely, and last the file that marks it as done. A
repeated task therefore overwrites its own output, and a second ``encode`` after a kill does only
the unfinished tasks. The driver writes the manifest at the end.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from mmtpp.core.errors import DataError, ModelError, StorageError
from mmtpp.core.split import split_from_path
from mmtpp.data.encode import shards
from mmtpp.data.encode.encode_pipeline import EncodePipeline, RepeatedIdsError
from mmtpp.data.encode.encode_settings import AUTO, SEQUENCE, EncodeSettings
from mmtpp.data.encode.given_splits import check_given_splits, warn_unused_splits
from mmtpp.data.encode.reused_pieces import ReusablePieces, num_partitions_of
from mmtpp.data.encode.reused_shards import ShardInputs, find_reusable
from mmtpp.data.encode.source_listing import list_event_files
from mmtpp.data.encode.totals import Totals, json_digest
from mmtpp.data.encode.train_vocabulary import load_or_train_vocabulary
from mmtpp.data.store.layout import (
    GROUP_EVENTS,
    IMAGES_PER_BLOCK,
    PART_EVENTS,
    PENDING,
    REJECTED,
)
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE, Vocabulary
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import exists, join, remove_folder, write_bytes

logger = logging.getLogger(__name__)

ENCODE_VERSION = 5  # bump when the same input gives another output
SHOWN_CAUSES = 3


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """Outcome of ``encode``.

    Attributes:
        manifest: Manifest of the store.
        reused: True when the store already existed, made from the same input and settings.
        shards_copied: Number of shards of files that this call copied from the store before.
        files_not_read: Number of files of the source that hold no events, by suffix.
    """

    manifest: Manifest
    reused: bool
    shards_copied: int
    files_not_read: dict[str, int]


def encode(
    settings: EncodeSettings,
    store_uri: str,
    *,
    vocabulary: Vocabulary | None,
    max_rejected_fraction: float,
    max_file_bytes: int,
    max_processes: int,
    machine_labels: Mapping[str, str],
) -> EncodeReport:
    """Prepare the event store of a source. Runs on the driver; the work is in Ray Data tasks.

    Args:
        settings: Source and content of the store.
        store_uri: Folder of the store. A finished store with the same input and settings is kept.
        vocabulary: Vocabulary of the base model; None keeps the one of the existing store, or
            trains a small tokenizer on the texts.
        max_rejected_fraction: Largest share of events that may be rejected, 0 to 1.
        max_file_bytes: Largest event file; a larger one is refused before any work.
        max_processes: Number of processes; 0 uses every CPU of the cluster.
        machine_labels: Ray labels of the machines that do the work; empty for any machine.

    Raises:
        DataError: No files, a malformed or too large one, or too few events that are kept.
        RepeatedIdsError: Ids repeat, and the events of a sequence are not joined.
        ModelError: The existing store has another vocabulary.
        StorageError: Source or store cannot be reached.
        ClusterError: A task kills its process repeatedly.
    """
    listing, files = list_event_files(settings, max_file_bytes=max_file_bytes)
    check_given_splits(settings, [path for path, _ in listing.events])
    may_join = _may_join(settings, listing.events)
    request = _request_digest(settings, vocabulary, files.digest)
    existing = find_manifest(store_uri, to_replace=True)
    if existing and existing.request == request:
        _keep(existing, settings, store_uri, max_rejected_fraction)
        return EncodeReport(existing, True, 0, listing.not_read)
    vocabulary = _choose_vocabulary(vocabulary, settings, store_uri, existing, listing.events)
    folders = _DataFolders(store_uri, request, vocabulary)
    first_folder = folders.create()
    source_shards = shards.build_shards(listing.events)
    pipeline = EncodePipeline(settings, first_folder, max_processes, machine_labels)
    pipeline = pipeline.with_type_names(source_shards, existing.type_names if existing else ())
    inputs = ShardInputs.from_settings(files, pipeline.settings, vocabulary.hash, _division())
    old_folder = join(store_uri, existing.data_folder) if existing else ""
    encoded = _run(pipeline, source_shards, inputs, folders, old_folder, may_join=may_join)
    totals, data_folder = encoded.totals, encoded.folder.rpartition("/")[2]
    warn_unused_splits(settings, totals.declared_splits)
    manifest = totals.build_manifest(pipeline.settings, request, data_folder, vocabulary.hash)
    _check_rejected(manifest, settings, store_uri, max_rejected_fraction, totals.examples)
    manifest.save(store_uri)
    _remove_intermediate(first_folder, encoded.folder)
    return EncodeReport(manifest, False, encoded.num_copied, listing.not_read)


def _may_join(settings: EncodeSettings, files: Sequence[tuple[str, int]]) -> bool:
    """Whether ``auto`` joins events of one id in several files; false for other settings."""
    if settings.partitioning != AUTO:
        return False
    if settings.split_by == "given":  # the id of a sequence then starts with its split
        return True
    # files of several splits, whose ids often begin anew in each
    return len({split_from_path(path) for path, _ in files} - {""}) < 2


def _request_digest(
    settings: EncodeSettings, vocabulary: Vocabulary | None, source_state: str
) -> str:
    """Hash of everything that the content of the store depends on."""
    return json_digest(
        [
            ENCODE_VERSION,
            _division()[1:],
            asdict(settings),
            vocabulary.hash if vocabulary else "",
            source_state,
        ]
    )


def _division() -> list[int]:
    """Version of the steps, and sizes of shards, parts and blocks, which all shards depend on."""
    return [
        ENCODE_VERSION,
        shards.FILES_PER_SHARD,
        shards.BYTES_PER_SHARD,
        PART_EVENTS,
        GROUP_EVENTS,
        IMAGES_PER_BLOCK,
    ]


@dataclass(frozen=True, slots=True)
class _DataFolders:
    """The data folders of a call.

    Attributes:
        store_uri: Folder of the store.
        request: Hash of everything that the content of the store depends on.
        vocabulary: Vocabulary of the store.
    """

    store_uri: str
    request: str
    vocabulary: Vocabulary

    def create(self, *, attempt: str = "") -> str:
        """Write the tokenizer to a data folder, and return the URI of the folder.

        The name depends on all attributes, so only shards of an equal attempt are reused.
        """
        parts = [self.request, self.vocabulary.hash, *filter(None, [attempt])]
        folder = join(self.store_uri, f"data-{json_digest(parts)[:16]}")
        write_bytes(join(folder, TOKENIZER_FILE), self.vocabulary.tokenizer_json.encode())
        return folder


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A data folder whose shards are all finished.

    Attributes:
        totals: Sums over the shards.
        folder: URI of the folder.
        num_copied: Number of shards of files that were copied, not read.
    """

    totals: Totals
    folder: str
    num_copied: int


def _run(
    pipeline: EncodePipeline,
    source_shards: list[shards.FileShard],
    inputs: ShardInputs,
    folders: _DataFolders,
    old_folder: str,
    *,
    may_join: bool,
) -> _Encoded:
    """Encode all shards. What did not change is copied from the present store.

    Args:
        pipeline: The steps, in the first data folder.
        source_shards: All shards of the source.
        inputs: What the shards depend on.
        folders: The data folders of this call.
        old_folder: Data folder of the present store; empty without one.
        may_join: Whether ``auto`` joins the files if ids repeat.
    """
    must_join = pipeline.settings.partitioning == SEQUENCE
    reusable = None
    if old_folder and (must_join or may_join):
        reusable = ReusablePieces.find(old_folder, inputs, source_shards)
    if must_join:
        return _encode_joined(pipeline, source_shards, inputs, reusable)
    if reusable is None:
        encoded = _encode_files(pipeline, source_shards, inputs, old_folder, may_join=may_join)
        if encoded is not None:
            return encoded
    # tasks of the first attempt may still write to their folder
    joined_pipeline = pipeline.in_folder(folders.create(attempt="joined"))
    return _encode_joined(joined_pipeline, source_shards, inputs, reusable)


def _encode_files(
    pipeline: EncodePipeline,
    source_shards: list[shards.FileShard],
    inputs: ShardInputs,
    old_folder: str,
    *,
    may_join: bool,
) -> _Encoded | None:
    """Encode sequences that lie in one file each; None if ids repeat, so that files are joined.

    Raises:
        RepeatedIdsError: Ids repeat, and files are not joined.
    """
    num_copied = _copy_shards(pipeline, old_folder, inputs, source_shards)
    try:
        totals = pipeline.run(source_shards, may_join=may_join)
    except RepeatedIdsError:
        if may_join:
            return None
        raise
    inputs.save(pipeline.folder)
    return _Encoded(totals, pipeline.folder, num_copied)


def _encode_joined(
    pipeline: EncodePipeline,
    source_shards: list[shards.FileShard],
    inputs: ShardInputs,
    reusable: ReusablePieces | None,
) -> _Encoded:
    """Encode sequences that may lie in several files."""
    totals = pipeline.run_joined(source_shards, reusable)
    num_partitions = num_partitions_of(source_shards, reusable)
    replace(inputs, num_partitions=num_partitions).save(pipeline.folder)
    num_copied = len(reusable.shards) if reusable else 0
    _log_copied(num_copied, source_shards)
    return _Encoded(totals, pipeline.folder, num_copied)


def _copy_shards(
    pipeline: EncodePipeline,
    old_folder: str,
    inputs: ShardInputs,
    source_shards: list[shards.FileShard],
) -> int:
    """Copy the shards of whole files that are the same in the new store; return their number."""
    if not old_folder:
        return 0
    items = find_reusable(old_folder, inputs, source_shards)
    num_copied = pipeline.copy_shards(items, old_folder)
    _log_copied(num_copied, source_shards)
    return num_copied


def _log_copied(num_copied: int, source_shards: list[shards.FileShard]) -> None:
    if num_copied:
        logger.info(
            "%d of %d shards are those of the present store, and were copied",
            num_copied,
            len(source_shards),
        )


def _choose_vocabulary(
    vocabulary: Vocabulary | None,
    settings: EncodeSettings,
    store_uri: str,
    existing: Manifest | None,
    files: list[tuple[str, int]],
) -> Vocabulary:
    """The vocabulary of the model, of the existing store, or of a tokenizer trained on the files.

    Raises:
        ModelError: The existing store has another vocabulary.
    """
    if vocabulary is None:
        vocabulary = load_or_train_vocabulary(settings, store_uri, existing, files)
    if existing and existing.vocabulary_hash != vocabulary.hash:
        raise ModelError(
            f"the store has the vocabulary {existing.vocabulary_hash[:16]}, this job "
            f"{vocabulary.hash[:16]}; a model of one cannot read the other",
            where=store_uri,
            cause="model.path or model.tokenizer_size differs from the one the store was made with",
            setting="store.uri: choose another folder, or delete the existing store",
        )
    return vocabulary


def _keep(
    existing: Manifest, settings: EncodeSettings, store_uri: str, max_rejected_fraction: float
) -> None:
    """Keep a finished store with the same input and settings."""
    logger.info("the store is up to date, nothing to prepare: %s", store_uri)
    folder = join(store_uri, existing.data_folder)
    _remove_intermediate(folder, folder)
    _check_rejected(existing, settings, store_uri, max_rejected_fraction)


def _remove_intermediate(first_folder: str, folder: str) -> None:
    """Remove what a finished store does not need: intermediate files, and a first attempt.

    Args:
        first_folder: Data folder of the first attempt.
        folder: Data folder of the store.
    """
    _remove_folder(join(folder, PENDING))
    if first_folder != folder:
        _remove_folder(first_folder)


def _remove_folder(folder: str) -> None:
    """Remove a folder; a failure is only a warning."""
    try:
        if exists(folder):
            remove_folder(folder)
    except StorageError as error:
        logger.warning("cannot remove the intermediate files: %s", error)


def _check_rejected(
    manifest: Manifest,
    settings: EncodeSettings,
    store_uri: str,
    max_rejected_fraction: float,
    examples: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse a store with too many rejected events.

    Args:
        manifest: Manifest of the store.
        settings: Settings of ``encode``, for messages.
        store_uri: Location of the store, for messages.
        max_rejected_fraction: Largest share of events that may be rejected.
        examples: One rejected record for each cause.

    Raises:
        DataError: Nothing was kept, or too many events were rejected.
    """
    if manifest.events_read != manifest.events_kept + manifest.events_rejected:
        raise AssertionError(f"events do not add up: {manifest}")
    rejected_uri = join(store_uri, manifest.data_folder, REJECTED)
    causes = "\n    ".join(examples[cause] for cause in sorted(examples)[:SHOWN_CAUSES])
    if manifest.events_kept == 0:
        raise DataError(
            f"no events left in {settings.source_uri}: {manifest.rejected_by_cause}",
            where=f"rejected records: {rejected_uri}",
            cause=causes,
        )
    fraction = manifest.events_rejected / manifest.events_read
    if fraction > max_rejected_fraction:
        raise DataError(
            f"{manifest.events_rejected} of {manifest.events_read} events were rejected: "
            f"{manifest.rejected_by_cause}",
            where=f"rejected records with cause and position: {rejected_uri}",
            cause=causes,
            setting=f"source.max_rejected_fraction = {max_rejected_fraction}",
        )
