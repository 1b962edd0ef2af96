"""Encode: raw files to an event store. Everything costly, and nothing that depends on Delta.

    list files -> shards of files
    ReadShard     parse, check, tokenise each distinct text once          a task: 16 MiB of files
    DecodeImages  read and resize each image once, drop equal ones        a task: 256 images
    FinishShard   point events to frames, reject those of bad images      a task: a shard
    manifest

Each step is a Ray Data job whose tasks run anywhere in the cluster. A task writes a function of its
input, whole, and last of all the file that says it is done: a repeated task overwrites its own
work, and preparing again after a kill does the rest. The driver writes the manifest at the end.
"""

import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from mmtpp.core.errors import ClusterError, DataError, ModelError, StorageError, from_record
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.finish_shard import FinishShard, Reading
from mmtpp.data.encode.frames import DecodeImages
from mmtpp.data.encode.given_parts import check_keys, check_parts
from mmtpp.data.encode.listing import list_events
from mmtpp.data.encode.read_shard import ReadShard
from mmtpp.data.encode.tokenizer import own_vocabulary
from mmtpp.data.encode.totals import Totals, digest, names_in
from mmtpp.data.encode.type_names import CountTypes, chosen_types
from mmtpp.data.store.layout import (
    COUNTS,
    GROUP_EVENTS,
    IMAGES_PER_BLOCK,
    PART_EVENTS,
    PENDING,
    REJECTED,
    block_file,
    shard_file,
)
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary
from mmtpp.runtime.machines import machines
from mmtpp.runtime.progress import ProgressBar
from mmtpp.storage.manifest import Manifest, find_manifest
from mmtpp.storage.paths import (
    ahead,
    exists,
    join,
    list_files,
    read_bytes,
    remove_folder,
    write_bytes,
)

logger = logging.getLogger(__name__)

ENCODE_VERSION = 5  # bump when the same input gives another output
FILES_PER_SHARD = 128
BYTES_PER_SHARD = 16 * 2**20
# Ray Data takes some 0.15 s to give a free process its next task, so a task is several items
# where there are enough of them for all processes
ITEMS_PER_TASK = 4
TASKS_PER_PROCESS = 4
MAX_TASKS = 4096  # of a Ray Data job
MAX_RETRIES = 8  # of a task or process that dies; machines come and go
READS_IN_FLIGHT = 16
TYPES_FILE = "types.json"
SHOWN_CAUSES = 3


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """Outcome of ``encode``.

    Attributes:
        manifest: of the store.
        reused: True when the store was there already, made from the same input and settings.
        seconds: spent.
        files_not_read: Number of files of the source that hold no events, by suffix.
    """

    manifest: Manifest
    reused: bool
    seconds: float
    files_not_read: dict[str, int]


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that one task reads.

    Attributes:
        index: from 0.
        paths: relative to the source.
        num_bytes: of all.
    """

    index: int
    paths: list[str]
    num_bytes: int


def encode(
    settings: EncodeSettings,
    store_uri: str,
    *,
    vocabulary: Vocabulary | None,
    max_rejected_fraction: float,
    max_file_bytes: int,
    max_workers: int,
    machine_labels: Mapping[str, str],
) -> EncodeReport:
    """Prepare the event store of a source. Runs on the driver; the work is in Ray Data tasks.

    Args:
        settings: what to do.
        store_uri: where to; a finished store with the same input and settings is left as it is.
        vocabulary: of the base model; None keeps that of the store, or trains a small tokenizer
            on the texts.
        max_rejected_fraction: fails above this share of rejected events.
        max_file_bytes: larger event files are refused before any work.
        max_workers: processes; 0 for as many as the cluster has CPUs.
        machine_labels: of the machines that do it; none for any.

    Raises:
        DataError: no files, a malformed or too large one, no events, too many rejected, equal
            sequence ids.
        ModelError: the store there has another vocabulary.
        StorageError: source or store cannot be reached.
        ClusterError: a task kills its process again and again.
    """
    started = time.monotonic()
    found, state = list_events(settings, max_file_bytes=max_file_bytes)
    files = found.events
    if found.not_read:
        logger.warning("%s: %s", settings.source_uri, found.warning())
    check_parts(settings, [path for path, _ in files])
    request = digest(
        [
            ENCODE_VERSION,
            # another division into shards, parts and blocks does not go on with this one's files
            [FILES_PER_SHARD, BYTES_PER_SHARD, PART_EVENTS, GROUP_EVENTS, IMAGES_PER_BLOCK],
            asdict(settings),
            vocabulary.hash if vocabulary else "",
            state,
        ]
    )
    existing = find_manifest(store_uri, to_replace=True)
    if existing and existing.request == request:
        logger.info("the store is up to date, nothing to prepare: %s", store_uri)
        _clean(join(store_uri, existing.data_folder))
        _check(existing, settings.source_uri, store_uri, max_rejected_fraction)
        return EncodeReport(existing, True, time.monotonic() - started, found.not_read)

    vocabulary = vocabulary or own_vocabulary(settings, store_uri, existing, files)
    if existing and existing.vocabulary_hash != vocabulary.hash:
        raise ModelError(
            f"the store has the vocabulary {existing.vocabulary_hash[:16]}, this job "
            f"{vocabulary.hash[:16]}; models of one cannot read the other",
            where=store_uri,
            cause="model.path or model.tokenizer_size is not the one the store was made with",
            setting="store.uri: choose another folder, or delete the store there",
        )
    # of the request and the vocabulary: shards of an earlier attempt fit, or are not found
    data_folder = f"data-{digest([request, vocabulary.hash])[:16]}"
    folder = join(store_uri, data_folder)
    write_bytes(join(folder, TOKENIZER_FILE), vocabulary.tokenizer_json.encode())
    shards = _shards(files)
    if settings.finds_types:
        known = existing.type_names if existing else ()
        names = _Run(settings, folder, max_workers, machine_labels).types(shards, known)
        settings = replace(settings, type_names=names)
    run = _Run(settings, folder, max_workers, machine_labels)
    totals = run.all_steps(shards)
    check_keys(settings, totals.parts)
    manifest = totals.manifest(settings, request, data_folder, vocabulary.hash)
    run.check_names(totals)
    _check(manifest, settings.source_uri, store_uri, max_rejected_fraction, totals.examples)
    manifest.save(store_uri)
    _clean(folder)
    return EncodeReport(manifest, False, time.monotonic() - started, found.not_read)


class _Run:
    """The steps of one ``encode``; each starts with what earlier attempts have left undone."""

    def __init__(
        self,
        settings: EncodeSettings,
        folder: str,
        max_workers: int,
        machine_labels: Mapping[str, str],
    ) -> None:
        self._settings, self._folder = settings, folder
        self._max_workers, self._machine_labels = max_workers, machine_labels

    def types(self, shards: list[Shard], known: Sequence[str]) -> tuple[str, ...]:
        """The names of ``source.types = "auto"``; counted once, then kept beside the shards."""
        uri = join(self._folder, TYPES_FILE)
        if exists(uri):
            return tuple(json.loads(read_bytes(uri)))
        progress = ProgressBar("find types", total=len(shards), unit="shards")
        counts: Counter[str] = Counter()
        items = [{"shard": shard.index, "paths": shard.paths} for shard in shards]
        for row in self._map(CountTypes, items, (self._settings,)):
            counts.update(json.loads(row["types"]))
            progress.advance(1, f"{len(counts):,} types")
        progress.close()
        names = chosen_types(
            counts,
            known=known,
            folds_rare=self._settings.folds_rare,
            where=self._settings.source_uri,
        )
        write_bytes(uri, json.dumps(names).encode())
        return names

    def all_steps(self, shards: list[Shard]) -> Totals:
        """Every step that is not done; the counts of all shards."""
        totals = Totals(self._settings.seconds_per_unit)
        done = self._names(COUNTS, ".json")
        finished = {shard.index for shard in shards if shard_file(shard.index, ".json") in done}
        if finished:
            logger.info("%d of %d shards were finished before", len(finished), len(shards))
        for counts in self._read_all([join(COUNTS, shard_file(i, ".json")) for i in finished]):
            totals.add(json.loads(counts))
        left = [shard for shard in shards if shard.index not in finished]
        num_images = self._read_files(left, totals)
        self._decode(num_images)
        items = [{"shard": shard} for shard in sorted(num_images, key=lambda i: -num_images[i])]
        progress = ProgressBar("finish", total=len(items), unit="shards")
        for row in self._map(FinishShard, items, (self._folder,)):
            totals.add(json.loads(row["counts"]))
            progress.advance(1)
        progress.close()
        return totals

    def _read_files(self, shards: list[Shard], totals: Totals) -> dict[int, int]:
        """The first step; images of each shard that is not finished by it."""
        done = self._names(PENDING, ".json")
        read = [shard.index for shard in shards if shard_file(shard.index, ".json") in done]
        uris = [join(PENDING, shard_file(index, ".json")) for index in read]
        found = [Reading.of_json(text) for text in self._read_all(uris)]
        num_images = {index: reading.num_images for index, reading in zip(read, found, strict=True)}
        left = [shard for shard in shards if shard.index not in num_images]
        left.sort(key=lambda shard: -shard.num_bytes)  # a large file must not be the last
        sizes = {shard.index: shard.num_bytes for shard in left}
        total = sum(sizes.values())
        progress = ProgressBar("read", total=total, unit="MB", scale=10**6)
        items = [{"shard": shard.index, "paths": shard.paths} for shard in left]
        num_events = 0
        for row in self._map(ReadShard, items, (self._settings, self._folder)):
            if row["counts"]:
                totals.add(json.loads(row["counts"]))
            else:
                num_images[row["shard"]] = row["num_images"]
            num_events += row["events"]
            progress.advance(sizes[row["shard"]], f"{num_events:,} events")
        progress.close()
        return num_images

    def _decode(self, num_images: dict[int, int]) -> None:
        """The second step, over the images of these shards."""
        done = self._names(join(PENDING, "decoded"), ".parquet")
        items = [
            {"shard": shard, "block": block, "images": min(IMAGES_PER_BLOCK, count - first)}
            for shard, count in sorted(num_images.items())
            for block, first in enumerate(range(0, count, IMAGES_PER_BLOCK))
            if block_file(shard_file(shard), block) not in done
        ]
        progress = ProgressBar("decode", total=sum(item["images"] for item in items), unit="images")
        for row in self._map(DecodeImages, items, (self._settings, self._folder)):
            progress.advance(row["images"])
        progress.close()

    def _map(self, step: type, items: list[dict], arguments: tuple) -> Iterator[dict]:
        """Run a step over items with Ray Data; results come as they are ready."""
        if not items:
            return
        num_tasks = self._num_tasks(len(items))
        # Ray cuts the list in order: deal, so that each task has large and small items
        dealt = [item for task in range(num_tasks) for item in items[task::num_tasks]]
        with warnings.catch_warnings():
            # Ray means to remove max_retries in 2.64 and names nothing in its place; without it a
            # task that kills its process, for want of memory say, runs for ever
            warnings.simplefilter("ignore", DeprecationWarning)
            results = ray.data.from_items(dealt, override_num_blocks=num_tasks).map(
                _task(step, arguments),
                # tasks, not actors: the processes of one step run those of the next. Without a
                # limit as many as the cluster has CPUs for, also when the autoscaler brings more
                compute=ray.data.TaskPoolStrategy(min(self._max_workers or num_tasks, num_tasks)),
                max_retries=MAX_RETRIES,
                label_selector=dict(self._machine_labels) or None,
            )
        try:
            for row in results.iter_rows():
                if row["problem"]:
                    raise from_record(row["problem"])
                yield row
        except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
            raise ClusterError(
                f"a process of the step {step.__name__} failed {MAX_RETRIES + 1} times: "
                f"{str(error).splitlines()[-1]}",
                where=self._settings.source_uri,
                cause="it was killed for want of memory, or crashed on a file; what is finished "
                "is kept",
                setting=f"source.max_workers = {self._max_workers}, source.max_file_mib",
            ) from error

    def _num_tasks(self, num_items: int) -> int:
        found = machines(self._machine_labels)
        processes = self._max_workers or int(sum(each.get("CPU", 0) for each in found)) or 1
        wanted = max(-(-num_items // ITEMS_PER_TASK), TASKS_PER_PROCESS * processes)
        return min(num_items, wanted, MAX_TASKS)

    def _names(self, folder: str, suffix: str) -> set[str]:
        """Names of the files of a folder, none if it is not there."""
        uri = join(self._folder, folder)
        files = list_files(uri, suffix) if exists(uri) else []
        return {info.base_name for info in files}

    def _read_all(self, names: list[str]) -> Iterator[bytes]:
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            uris = [join(self._folder, name) for name in names]
            yield from ahead(pool, read_bytes, uris, depth=READS_IN_FLIGHT)

    def check_names(self, totals: Totals) -> None:
        """Refuse sequence ids that occur more than once."""
        repeated = totals.repeated()
        if not repeated:
            return
        names = [join(COUNTS, name) for name in sorted(self._names(COUNTS, ".json"))]
        example = next(
            name
            for counts in self._read_all(names)
            for name in names_in(json.loads(counts), repeated)
        )
        raise DataError(
            f"{len(repeated)} sequence ids occur more than once, {example!r} is one",
            where=self._settings.source_uri,
            cause="the events of a sequence lie in several files, or two files have one name but "
            "for the suffix; put the events of a sequence into one file",
        )


def _task(step: type, arguments: tuple) -> Callable[[dict], dict]:
    """A Ray Data function under the name of the step."""

    def run(row: dict) -> dict:
        return _step_here(step, *arguments)(row)

    run.__name__ = step.__name__
    return run


@lru_cache(maxsize=1)
def _step_here(step: type, *arguments: object) -> Any:
    """The step as this process keeps it for all the tasks it is given."""
    return step(*arguments)


def _clean(folder: str) -> None:
    """Remove what the steps left for each other; the store is complete with or without it."""
    try:
        if exists(join(folder, PENDING)):
            remove_folder(join(folder, PENDING))
    except StorageError as error:
        logger.warning("cannot remove what is no longer needed: %s", error)


def _check(
    manifest: Manifest,
    source_uri: str,
    store_uri: str,
    max_rejected_fraction: float,
    examples: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse a store that lacks too many events.

    Args:
        manifest: Of the store.
        source_uri: Where the events come from, for messages.
        store_uri: Where the store is, for messages.
        max_rejected_fraction: The largest share of events that may be rejected.
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
            f"no events left in {source_uri}: {manifest.rejected_by_cause}",
            where=f"rejected: {rejected_uri}",
            cause=causes,
        )
    fraction = manifest.events_rejected / manifest.events_read
    if fraction > max_rejected_fraction:
        raise DataError(
            f"{manifest.events_rejected} of {manifest.events_read} events were rejected: "
            f"{manifest.rejected_by_cause}",
            where=f"each with its cause and position: {rejected_uri}",
            cause=causes,
            setting=f"source.max_rejected_fraction = {max_rejected_fraction}",
        )


def _shards(files: Sequence[tuple[str, int]]) -> list[Shard]:
    shards: list[Shard] = []
    paths: list[str] = []
    size = 0
    for path, num_bytes in files:
        if paths and (len(paths) >= FILES_PER_SHARD or size + num_bytes > BYTES_PER_SHARD):
            shards.append(Shard(len(shards), paths, size))
            paths, size = [], 0
        paths.append(path)
        size += num_bytes
    return [*shards, Shard(len(shards), paths, size)]
