"""A bounded folder of Arrow tables on the local disk, shared by the processes of a machine.

Tables are memory-mapped, so those in use cost no memory of their own. When the folder grows over
its limit the tables used longest ago go first. A full or unwritable disk costs speed, not the job.
"""

import errno
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mmtpp.core.errors import StorageError

logger = logging.getLogger(__name__)

SUFFIX = ".arrow"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def default_cache_folder() -> Path:
    """``$MMTPP_CACHE``, else ``mmtpp`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.environ.get("MMTPP_CACHE"):
        return Path(os.environ["MMTPP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtpp"


class DiskCache:
    """Keeps tables by key.

    Args:
        folder: of the cache; made when missing, closed to other users.
        max_bytes: limit of all tables together.

    Raises:
        StorageError: the folder cannot be made, or belongs to somebody else.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._is_writable = True
        self._written = 0  # by this process since it last looked at the whole folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"cannot make the cache folder: {error.strerror}",
                where=str(folder),
                setting="store.cache_path; or store.cache_gib = 0 to do without",
            ) from error
        if folder.stat().st_uid != os.getuid():
            raise StorageError(
                "the cache folder belongs to another user",
                where=str(folder),
                setting="store.cache_path",
            )

    def table(self, key: str, load: Callable[[], pa.Table]) -> pa.Table:
        """The table of a key, from disk or from ``load``, which is then kept.

        Args:
            key: names content that never changes.
            load: reads the table where it is not kept.
        """
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}{SUFFIX}"
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            os.utime(path)  # used now
            return table
        except FileNotFoundError:
            pass
        except (pa.ArrowInvalid, OSError):  # cut off by a crash of the machine
            path.unlink(missing_ok=True)
        table = load()
        if self._is_writable:
            self._keep(path, table)
        return table

    def _keep(self, path: Path, table: pa.Table) -> None:
        pending = path.with_name(f"{path.stem}.{os.getpid()}.pending")
        try:
            with (
                pa.OSFile(str(pending), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
            size = pending.stat().st_size
            pending.replace(path)
        except OSError as error:
            pending.unlink(missing_ok=True)
            if error.errno not in _NO_ROOM and "space" not in str(error):
                raise StorageError(
                    f"cannot write to the cache: {error}",
                    where=str(path),
                    setting="store.cache_path; or store.cache_gib = 0 to do without",
                ) from error
            self._is_writable = False
            logger.warning(
                "no room for the cache, going on without adding to it; store.cache_gib, "
                "store.cache_path: %s: %s",
                self._folder,
                error,
            )
            return
        self._written += size
        # other processes write too: look at all of it after a small share of the limit
        if self._written > self._max_bytes / 64:
            self._written = 0
            self.shrink()

    def shrink(self) -> None:
        """Delete the tables used longest ago until nine tenths of the limit are left."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process was faster
            found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            total -= size
            if total <= 0.9 * self._max_bytes:
                return
