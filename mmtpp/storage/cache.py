"""A bounded folder of Arrow tables on the local disk, shared by the processes of a machine.

Tables are memory-mapped, so those in use cost no memory of their own. When the folder grows over
its limit the tables used longest ago go first. A disk that is full or cannot be written costs
speed, not the job.
"""

import hashlib
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mmtpp.core.errors import StorageError

logger = logging.getLogger(__name__)

SUBFOLDER = "tables"
_NAME = re.compile(r"[0-9a-f]{40}\.arrow|[0-9a-f]{32}\.pending")
_PENDING_S = 3600.0  # a pending table older than this is left over from a kill


def default_cache_folder() -> Path:
    """``$MMTPP_CACHE``, else ``mmtpp`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.environ.get("MMTPP_CACHE"):
        return Path(os.environ["MMTPP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mmtpp"


class DiskCache:
    """Keeps tables by key.

    Args:
        folder: of the cache; made when missing. Tables go into a folder in it that only this user
            can enter.
        max_bytes: limit of all tables together.

    Raises:
        StorageError: others could write into the folder.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder / SUBFOLDER, max_bytes
        self._is_writable = True
        self._written = 0  # by this process since it last looked at the whole folder
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self._folder.lstat()
        except OSError as error:
            self._do_without(error)
            return
        if (
            status.st_uid != os.getuid()
            or not stat.S_ISDIR(status.st_mode)
            or (status.st_mode & 0o022)
        ):
            raise StorageError(
                "others can write into the cache, and what is read from it is trusted",
                where=str(self._folder),
                cause="it belongs to another user, is a link, or its mode lets others write",
                setting="store.cache_path; or store.cache_gib = 0 to do without",
            )
        self.shrink()

    def table(self, key: str, load: Callable[[], pa.Table]) -> pa.Table:
        """The table of a key, from disk or from ``load``, which is then kept.

        Args:
            key: names content that never changes.
            load: reads the table where it is not kept.
        """
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.arrow"
        found = self._find(path)
        if found is not None:
            return found
        table = load()
        if self._is_writable:
            self._keep(path, table)
        return table

    def _find(self, path: Path) -> pa.Table | None:
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except (pa.ArrowInvalid, OSError):  # not there, or cut off by a crash of the machine
            return None
        try:
            os.utime(path)  # used now
        except OSError:
            logger.debug("cannot note the use of %s", path)
        return table

    def _keep(self, path: Path, table: pa.Table) -> None:
        pending = path.with_name(f"{uuid.uuid4().hex}.pending")
        try:
            with (
                pa.OSFile(str(pending), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
            size = pending.stat().st_size
            pending.replace(path)
        except OSError as error:
            _remove(pending)
            self._do_without(error)
            return
        self._written += size
        # other processes write too: look at all of it after a small share of the limit
        if self._written > self._max_bytes / 64:
            self._written = 0
            self.shrink()

    def _do_without(self, error: OSError) -> None:
        self._is_writable = False
        logger.warning(
            "the cache cannot be written, going on without adding to it (store.cache_path, "
            "store.cache_gib): %s: %s",
            self._folder,
            error,
        )

    def shrink(self) -> None:
        """Delete the tables used longest ago until nine tenths of the limit are left."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # another process was faster
            if not _NAME.fullmatch(path.name):
                continue
            if path.suffix == ".pending":
                if time.time() - status.st_mtime > _PENDING_S:
                    _remove(path)
                continue
            found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(found):
            _remove(path)
            total -= size
            if total <= 0.9 * self._max_bytes:
                return


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("cannot delete %s: %s", path, error)
