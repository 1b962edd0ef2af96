"""Cache of Arrow tables on the local disk, shared by the processes of a machine.

Tables are memory-mapped, so the processes share their memory. When the cache exceeds its limit,
the least recently used tables are deleted. If the disk is full or not writable, the job continues
without the cache, but more slowly.
"""

import fcntl
import hashlib
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from mmtpp.core.errors import StorageError

logger = logging.getLogger(__name__)

SUBFOLDER = "tables"
_NAME = re.compile(r"[0-9a-f]{40}\.arrow|[0-9a-f]{32}\.pending")
_LOCK = "mapped.lock"
_PENDING_S = 3600.0  # age of a pending table that a killed process left behind


def default_cache_folder() -> Path:
    """Return ``$MMTPP_CACHE``, or else ``mmtpp`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.environ.get("MMTPP_CACHE"):
        return Path(os.environ["MMTPP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mmtpp"


class _TableTooLargeError(Exception):
    """A table takes more than half of the cache."""


class DiskCache:
    """Tables by key.

    Args:
        folder: Folder of the cache, created if missing. Tables are in a subfolder that only this
            user can enter.
        max_bytes: Maximum size of all tables together, in bytes.

    Raises:
        StorageError: Other users could write into the folder.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder / SUBFOLDER, max_bytes
        self._is_writable = True
        self._written = 0  # bytes this process wrote since it last checked the whole folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self._folder.lstat()
        except OSError as error:
            self._disable_writing(error)
            return
        if (
            status.st_uid != os.getuid()
            or not stat.S_ISDIR(status.st_mode)
            or (status.st_mode & 0o022)
        ):
            raise StorageError(
                "other users can write into the cache, whose content is trusted",
                where=str(self._folder),
                cause="the folder is a link, or another user owns it or can write to it",
                setting="store.cache_path; or store.cache_gib = 0 to disable the cache",
            )
        self.shrink()

    def table(self, key: str, load: Callable[[], pa.Table]) -> pa.Table:
        """Return the table of a key, from disk or from ``load``; a loaded table is stored.

        Args:
            key: Key of a table whose content never changes.
            load: Function that loads the table if the cache does not have it.
        """
        path = self._path(key)
        table = self._read(path)
        if table is not None:
            return table
        table = load()
        if self._is_writable:
            self._write(path, table.schema, table.to_batches())
        return table

    def mapped_table(self, key: str, load: Callable[[], pa.RecordBatchReader]) -> pa.Table:
        """Return the table of a key from disk, whose memory all processes of the machine share.

        A table that is not on disk is written batch by batch, by one process while the others wait.
        It is read into the memory of this process if the disk is full or not writable, or if the
        table takes more than half of the cache.

        Args:
            key: Key of a table whose content never changes.
            load: Function that opens the table if the cache does not have it.
        """
        path = self._path(key)
        table = self._read(path)
        if table is None and self._is_writable:
            with self._lock():
                table = self._read(path)
                if table is None and self._is_writable:
                    reader = load()
                    self._write(path, reader.schema, self._small_enough(reader))
                    table = self._read(path)
        return load().read_all() if table is None else table

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other processes from writing mapped tables; some file systems have no locks."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context((self._folder / _LOCK).open("w"))
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                self._disable_writing(error)
            yield

    def _small_enough(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of a table.

        Raises:
            _TableTooLargeError: They take more than half of the cache.
        """
        size = 0
        for batch in batches:
            size += batch.nbytes
            if size > self._max_bytes / 2:
                raise _TableTooLargeError
            yield batch

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.arrow"

    def _read(self, path: Path) -> pa.Table | None:
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except (pa.ArrowInvalid, OSError):  # missing, or truncated by a crash of the machine
            return None
        try:
            os.utime(path)  # the time of last use
        except OSError:
            logger.debug("cannot update the time of last use of %s", path)
        return table

    def _write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        pending = path.with_name(f"{uuid.uuid4().hex}.pending")
        try:
            with (
                pa.OSFile(str(pending), "wb") as sink,
                pa.ipc.new_file(sink, schema) as writer,
            ):
                for batch in batches:
                    writer.write_batch(batch)
            size = pending.stat().st_size
            pending.replace(path)
        except _TableTooLargeError:
            logger.warning(
                "a table takes more than half of the cache, so each process of this machine has "
                "it in its own memory; raise store.cache_gib, now %g GiB: %s",
                self._max_bytes / 2**30,
                self._folder,
            )
            return
        except OSError as error:
            self._disable_writing(error)
            return
        finally:
            _remove(pending)
        self._written += size
        # other processes write too, so check the whole folder often
        if self._written > self._max_bytes / 64:
            self._written = 0
            self.shrink()

    def _disable_writing(self, error: OSError) -> None:
        self._is_writable = False
        logger.warning(
            "cannot write to the cache, so the job continues without adding to it "
            "(store.cache_path, store.cache_gib): %s: %s",
            self._folder,
            error,
        )

    def shrink(self) -> None:
        """Delete the least recently used tables of a cache above its limit, down to 90 % of it."""
        tables: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # another process has deleted it
            if not _NAME.fullmatch(path.name):
                continue
            if path.suffix == ".pending":
                if time.time() - status.st_mtime > _PENDING_S:
                    _remove(path)
                continue
            tables.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in tables)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(tables):
            _remove(path)
            total -= size
            if total <= 0.9 * self._max_bytes:
                return


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("cannot delete %s: %s", path, error)
