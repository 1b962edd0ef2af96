"""The steps of ``encode`` as Ray Data jobs; ``encode`` shows their order."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from mmtpp.core.errors import ClusterError, DataError, error_from_json
from mmtpp.data.encode.decode_step import DecodeImages
from mmtpp.data.encode.encode_settings import AUTO, EncodeSettings
from mmtpp.data.encode.finish_step import FinishShard
from mmtpp.data.encode.partition_step import JoinPartition, PartitionShard
from mmtpp.data.encode.pieces import DONE, PartitionedShard, PartitionRange
from mmtpp.data.encode.read_step import ReadShard
from mmtpp.data.encode.repeated_ids import IdSamples
from mmtpp.data.encode.reused_pieces import CopyPieces, ReusablePieces, num_partitions_of
from mmtpp.data.encode.reused_shards import CopyShard
from mmtpp.data.encode.shard_output import ShardReading
from mmtpp.data.encode.shards import FileShard, Partition, build_partition
from mmtpp.data.encode.totals import Totals, ids_with_hashes
from mmtpp.data.encode.type_names import CountTypes, choose_type_names
from mmtpp.data.store.layout import (
    COUNTS,
    IMAGES_PER_BLOCK,
    PENDING,
    PIECES,
    TYPES,
    block_file,
    shard_file,
)
from mmtpp.runtime.machines import machines
from mmtpp.runtime.progress import ProgressBar
from mmtpp.storage.paths import (
    READS_IN_FLIGHT,
    exists,
    join,
    list_files,
    prefetch,
    read_bytes,
    write_bytes,
)

logger = logging.getLogger(__name__)

# Ray Data needs about 0.15 s to give a free process its next task. A task therefore holds several
# items where there are enough items for all processes.
ITEMS_PER_TASK = 4
TASKS_PER_PROCESS = 4
MAX_TASKS = 4096  # in one Ray Data job
MAX_RETRIES = 8  # of a task whose process or machine dies
REPEATED_IDS_FILE = "repeated_ids.json"  # marks a folder in which ids were found to repeat


class RepeatedIdsError(DataError):
    """Sequence ids occur in several files, or twice in one."""


class EncodePipeline:
    """The steps of one ``encode``. Each step does only the tasks that are not done yet.

    Args:
        settings: Source and content of the store.
        folder: URI of the data folder.
        max_processes: Number of processes; 0 uses every CPU of the cluster.
        machine_labels: Ray labels of the machines that do the work; empty for any machine.

    Attributes:
        settings: Source and content of the store.
        folder: URI of the data folder.
    """

    def __init__(
        self,
        settings: EncodeSettings,
        folder: str,
        max_processes: int,
        machine_labels: Mapping[str, str],
    ) -> None:
        self.settings, self.folder = settings, folder
        self._max_processes, self._machine_labels = max_processes, machine_labels

    def in_folder(self, folder: str) -> "EncodePipeline":
        """The same steps, writing to another data folder."""
        return EncodePipeline(self.settings, folder, self._max_processes, self._machine_labels)

    def with_type_names(self, shards: list[FileShard], known: Sequence[str]) -> "EncodePipeline":
        """The same steps with the names of the types, where ``source.types = "auto"`` finds them.

        Args:
            shards: All shards of the source.
            known: Type names of the existing store; they keep their codes.
        """
        if not self.settings.finds_types:
            return self
        settings = replace(self.settings, type_names=self._find_types(shards, known))
        return EncodePipeline(settings, self.folder, self._max_processes, self._machine_labels)

    def _find_types(self, shards: list[FileShard], known: Sequence[str]) -> tuple[str, ...]:
        """Type names for ``source.types = "auto"``, counted once and stored in the data folder.

        Args:
            shards: All shards of the source.
            known: Type names of the existing store; they keep their codes.
        """
        uri = join(self.folder, TYPES)
        if exists(uri):
            return tuple(json.loads(read_bytes(uri)))
        progress = ProgressBar("find types", total=len(shards), unit="shards")
        counts: Counter[str] = Counter()
        items = [shard.task for shard in shards]
        for row in self.run_step(CountTypes, items, (self.settings,)):
            counts.update(json.loads(row["types"]))
            progress.advance(1, f"{len(counts):,} types")
        progress.close()
        names = choose_type_names(
            counts,
            known=known,
            folds_rare=self.settings.folds_rare,
            where=self.settings.source_uri,
        )
        write_bytes(uri, json.dumps(names).encode())
        return names

    def copy_shards(self, items: list[dict], old_folder: str) -> int:
        """Copy unchanged shards of another data folder, which are then finished.

        Args:
            items: Result of ``find_reusable``.
            old_folder: URI of the other data folder.

        Returns:
            Number of copied shards, without those that were finished before.
        """
        done = self._file_names(COUNTS, ".json")
        todo = [item for item in items if shard_file(item["shard"], ".json") not in done]
        progress = ProgressBar("copy", total=len(todo), unit="shards")
        num_copied = 0
        for row in self.run_step(CopyShard, todo, (old_folder, self.folder)):
            num_copied += row["copied"]
            progress.advance(1)
        progress.close()
        return num_copied

    def run(self, shards: list[FileShard], *, may_join: bool) -> Totals:
        """Run the unfinished tasks of all steps, and sum the counts of all shards.

        Args:
            shards: All shards of the source.
            may_join: Whether the caller joins the files if ids repeat. The steps then stop as soon
                as this shows, and a repeated ``run`` stops at once.

        Raises:
            RepeatedIdsError: Sequence ids repeat.
        """
        marker = join(self.folder, REPEATED_IDS_FILE)
        if may_join and exists(marker):
            raise RepeatedIdsError("sequence ids repeat", where=self.settings.source_uri)
        totals = Totals(self.settings.seconds_per_unit)
        try:
            self._run_steps(shards, ReadShard, totals, IdSamples() if may_join else None)
            if repeated := totals.repeated_ids():
                raise self._repeated_ids_error(repeated)
        except RepeatedIdsError:
            if may_join:
                write_bytes(marker, b"{}")
            raise
        return totals

    def run_joined(self, shards: list[FileShard], reusable: ReusablePieces | None = None) -> Totals:
        """As ``run``, and join the events of a sequence that lie in several files.

        The sequences of all shards are divided into partitions. Each partition then is a shard of
        the store.

        Args:
            shards: All shards of the source.
            reusable: Pieces of the present store.
        """
        if self.settings.partitioning == AUTO:
            logger.warning(
                "%s: sequence ids occur in several files, so the events of an id are joined to one "
                "sequence; set source.partitioning = sequence if that is right, it also saves the "
                "first reading; if an id means another sequence in each file, set it to file and "
                "make the ids differ",
                self.settings.source_uri,
            )
        if reusable is not None:
            self._copy_pieces(reusable)
        totals = Totals(self.settings.seconds_per_unit)
        partitions = self._partition(shards, num_partitions_of(shards, reusable), totals)
        if reusable is not None:
            self.copy_shards(reusable.partition_tasks(partitions), reusable.old_folder)
        self._run_steps(partitions, JoinPartition, totals)
        return totals

    def _copy_pieces(self, reusable: ReusablePieces) -> None:
        """Copy the pieces of unchanged shards of files, which are then partitioned."""
        done = self._file_names(PIECES, DONE)
        todo = [task for task in reusable.copy_tasks if shard_file(task["shard"], DONE) not in done]
        progress = ProgressBar("copy", total=len(todo), unit="shards")
        for _ in self.run_step(CopyPieces, todo, (reusable.old_folder, self.folder)):
            progress.advance(1)
        progress.close()

    def _run_steps(
        self,
        shards: Sequence[FileShard | Partition],
        first_step: type,
        totals: Totals,
        ids: IdSamples | None = None,
    ) -> None:
        """Run the unfinished tasks of the steps that write the shards of the store.

        Args:
            shards: Inputs of the first of these steps: shards of files, or partitions of sequences.
            first_step: ``ReadShard`` or ``JoinPartition``.
            totals: Sums to which the counts of all shards are added.
            ids: Sequence ids to which those of the shards are added; None does not compare them.
        """
        done = self._file_names(COUNTS, ".json")
        finished = {shard.index for shard in shards if shard_file(shard.index, ".json") in done}
        if finished:
            logger.info("%d of %d shards were finished before", len(finished), len(shards))
        for counts in self._read_all([join(COUNTS, shard_file(i, ".json")) for i in finished]):
            totals.add(json.loads(counts))
        unfinished = [shard for shard in shards if shard.index not in finished]
        num_images = self._read_shards(unfinished, first_step, totals, ids)
        self._decode_images(num_images)
        self._finish_shards(num_images, totals)

    def _partition(
        self, shards: list[FileShard], num_partitions: int, totals: Totals
    ) -> list[Partition]:
        """Partition the shards that are not partitioned yet, and collect the partitions of all."""
        done = self._file_names(PIECES, DONE)
        todo = [shard for shard in shards if shard_file(shard.index, DONE) not in done]
        todo.sort(key=lambda shard: -shard.num_bytes)
        sizes = {shard.index: shard.num_bytes for shard in todo}
        progress = ProgressBar("partition", total=sum(sizes.values()), unit="MB", scale=10**6)
        num_events = 0
        arguments = (self.settings, self.folder, num_partitions)
        for row in self.run_step(PartitionShard, [shard.task for shard in todo], arguments):
            num_events += row["events"]
            progress.advance(sizes[row["shard"]], f"{num_events:,} events")
        progress.close()
        ranges: list[list[PartitionRange]] = [[] for _ in range(num_partitions)]
        names = [join(PIECES, shard_file(shard.index, DONE)) for shard in shards]
        for text in self._read_all(names):
            partitioned = PartitionedShard.from_json(text)
            totals.add_reading(partitioned.counts, partitioned.declared_splits)
            for partition, partition_range in enumerate(partitioned.ranges):
                ranges[partition].append(partition_range)
        return [build_partition(index, of_partition) for index, of_partition in enumerate(ranges)]

    def _repeated_ids_error(self, repeated: set[bytes]) -> RepeatedIdsError:
        """The error for sequence ids that occur more than once, by their hashes."""
        names = [join(COUNTS, name) for name in sorted(self._file_names(COUNTS, ".json"))]
        example = next(
            name
            for counts in self._read_all(names)
            for name in ids_with_hashes(json.loads(counts), repeated)
        )
        return RepeatedIdsError(
            f"{len(repeated)} sequence ids occur more than once, for example {example!r}",
            where=self.settings.source_uri,
            cause="the events of a sequence lie in several files, or the names of two files differ "
            "only in their suffix; put the events of a sequence into one file",
            setting=f"source.partitioning = {self.settings.partitioning}; sequence joins the "
            "events of a sequence from all files, where source.columns.sequence names it",
        )

    def run_step(self, step: type, items: list[dict], arguments: tuple) -> Iterator[dict]:
        """Run a step over items with Ray Data.

        Args:
            step: Class whose objects process one item.
            items: Inputs of the step, one dictionary for each call.
            arguments: Constructor arguments of the step.

        Yields:
            Results in the order in which they are ready.

        Raises:
            MmtppError: A step reports a problem.
            ClusterError: A task kills its process repeatedly.
        """
        if not items:
            return
        num_tasks = self._num_tasks(len(items))
        # Ray cuts the list in order. Deal the items, so that each task has large and small ones.
        dealt = [item for task in range(num_tasks) for item in items[task::num_tasks]]
        with warnings.catch_warnings():
            # Ray will remove max_retries in 2.64 and names no replacement. Without a limit, a task
            # that kills its process, for example by its memory use, is repeated forever.
            warnings.simplefilter("ignore", DeprecationWarning)
            results = ray.data.from_items(dealt, override_num_blocks=num_tasks).map(
                _task_function(step, arguments),
                # Tasks instead of actors: the processes of one step also run the next step.
                # Without max_processes, Ray uses all CPUs, also those that the autoscaler adds.
                compute=ray.data.TaskPoolStrategy(min(self._max_processes or num_tasks, num_tasks)),
                max_retries=MAX_RETRIES,
                label_selector=dict(self._machine_labels) or None,
            )
        try:
            for row in results.iter_rows():
                if row["problem"]:
                    raise error_from_json(row["problem"])
                yield row
        except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
            raise ClusterError(
                f"a process of the step {step.__name__} failed {MAX_RETRIES + 1} times: "
                f"{str(error).splitlines()[-1]}",
                where=self.settings.source_uri,
                cause="the process ran out of memory, or crashed on a file; finished shards are "
                "kept",
                setting=f"source.max_processes = {self._max_processes}, source.max_file_mib",
            ) from error

    def _read_shards(
        self,
        shards: Sequence[FileShard | Partition],
        first_step: type,
        totals: Totals,
        ids: IdSamples | None,
    ) -> dict[int, int]:
        """Run the step that reads or joins, and count the images of shards that need more steps.

        Raises:
            RepeatedIdsError: ``ids`` shows an id that occurs more than once.
        """
        done = self._file_names(PENDING, ".json")
        read = [shard.index for shard in shards if shard_file(shard.index, ".json") in done]
        files = [join(PENDING, shard_file(index, ".json")) for index in read]
        readings = [ShardReading.from_json(text) for text in self._read_all(files)]
        num_images = {
            index: reading.num_images for index, reading in zip(read, readings, strict=True)
        }
        unread = [shard for shard in shards if shard.index not in num_images]
        unread.sort(key=lambda shard: -shard.num_bytes)  # a large file must not be the last
        sizes = {shard.index: shard.num_bytes for shard in unread}
        title = "read" if first_step is ReadShard else "join"
        progress = ProgressBar(title, total=sum(sizes.values()), unit="MB", scale=10**6)
        items = [shard.task for shard in unread]
        num_events = 0
        for row in self.run_step(first_step, items, (self.settings, self.folder)):
            if ids is not None and ids.add(json.loads(row["id_sample"])):
                progress.close()
                raise RepeatedIdsError("sequence ids repeat", where=self.settings.source_uri)
            if row["counts"]:
                totals.add(json.loads(row["counts"]))
            else:
                num_images[row["shard"]] = row["num_images"]
            num_events += row["events"]
            progress.advance(sizes[row["shard"]], f"{num_events:,} events")
        progress.close()
        return num_images

    def _decode_images(self, num_images: dict[int, int]) -> None:
        """Run ``DecodeImages`` over the images of these shards."""
        done = self._file_names(join(PENDING, "decoded"), ".parquet")
        items = [
            {"shard": shard, "block": block, "images": min(IMAGES_PER_BLOCK, count - first)}
            for shard, count in sorted(num_images.items())
            for block, first in enumerate(range(0, count, IMAGES_PER_BLOCK))
            if block_file(shard_file(shard), block) not in done
        ]
        progress = ProgressBar("decode", total=sum(item["images"] for item in items), unit="images")
        for row in self.run_step(DecodeImages, items, (self.settings, self.folder)):
            progress.advance(row["images"])
        progress.close()

    def _finish_shards(self, num_images: dict[int, int], totals: Totals) -> None:
        """Run ``FinishShard`` over these shards, those with most images first."""
        items = [{"shard": shard} for shard in sorted(num_images, key=lambda i: -num_images[i])]
        progress = ProgressBar("finish", total=len(items), unit="shards")
        for row in self.run_step(FinishShard, items, (self.folder,)):
            totals.add(json.loads(row["counts"]))
            progress.advance(1)
        progress.close()

    def _num_tasks(self, num_items: int) -> int:
        resources = machines(self._machine_labels)
        num_cpus = int(sum(machine.get("CPU", 0) for machine in resources))
        processes = self._max_processes or num_cpus or 1
        wanted = max(-(-num_items // ITEMS_PER_TASK), TASKS_PER_PROCESS * processes)
        return min(num_items, wanted, MAX_TASKS)

    def _file_names(self, folder: str, suffix: str) -> set[str]:
        """Names of the files in a folder; empty if the folder does not exist."""
        uri = join(self.folder, folder)
        files = list_files(uri, suffix) if exists(uri) else []
        return {info.base_name for info in files}

    def _read_all(self, names: list[str]) -> Iterator[bytes]:
        """Contents of files in the data folder, read in parallel."""
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            uris = [join(self.folder, name) for name in names]
            yield from prefetch(pool, read_bytes, uris, depth=READS_IN_FLIGHT)


def _task_function(step: type, arguments: tuple) -> Callable[[dict], dict]:
    """A function for Ray Data that has the name of the step."""

    def run(row: dict) -> dict:
        return _cached_step(step, *arguments)(row)

    run.__name__ = step.__name__
    return run


@lru_cache(maxsize=1)
def _cached_step(step: type, *arguments: object) -> Any:
    """The step object that this process uses for all its tasks."""
    return step(*arguments)
