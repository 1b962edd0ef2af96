"""Local copies of remote folders, one copy for all processes of a machine."""

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmtpp.core.errors import StorageError
from mmtpp.storage.cache import default_cache_folder
from mmtpp.storage.paths import copy_folder, list_files

logger = logging.getLogger(__name__)

SUBFOLDER = "folders"
MAX_BYTES = 64 * 2**30  # of all copies; copies in use are never deleted


@contextmanager
def node_copy(uri: str, *, keep: bool = True) -> Iterator[Path]:
    """Copy a remote folder to the local disk, and yield the copy, which must not be changed.

    The first process of the machine copies the folder while other processes wait. If the files of
    the remote folder change, there is a new copy.

    Args:
        uri: URI of the folder.
        keep: Whether the copy is kept for later processes; otherwise its last user deletes it.

    Raises:
        StorageError: The folder cannot be read, or the cache folder is not safe.
    """
    files = [(info.path, info.size, str(info.mtime)) for info in list_files(uri, "")]
    name = hashlib.sha256(repr((uri, files)).encode()).hexdigest()[:32]
    root = _root()
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)  # other processes may use the copy, none may delete it
            if folder.exists():
                break
            fcntl.flock(lock, fcntl.LOCK_UN)
            # do not wait for the exclusive lock: its holders may themselves wait for this process
            if _try_lock(lock):
                if not folder.exists():
                    _make_room(root, sum(size for _, size, _ in files))
                    partial = root / f"{name}.partial"
                    shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
                    copy_folder(uri, str(partial))
                    partial.rename(folder)
                fcntl.flock(lock, fcntl.LOCK_UN)
            else:
                time.sleep(0.01)
        os.utime(folder)
        try:
            yield folder
        finally:
            if not keep:
                fcntl.flock(lock, fcntl.LOCK_UN)
                if _try_lock(lock):
                    _remove(folder)


def _root() -> Path:
    root = default_cache_folder() / SUBFOLDER
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = root.lstat()
    except OSError as error:
        raise StorageError(
            f"cannot create the cache folder: {error}",
            where=str(root),
            cause="choose another folder with the environment variable MMTPP_CACHE",
        ) from error
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
        raise StorageError(
            "other users could write into the cache folder",
            where=str(root),
            cause="choose another folder with the environment variable MMTPP_CACHE",
        )
    return root


def _make_room(root: Path, needed: int) -> None:
    """Delete unused copies, least recently used first, until a new copy fits."""
    with (root / "room.lock").open("w") as room:
        fcntl.flock(room, fcntl.LOCK_EX)
        copies = {folder: _size_and_time(folder) for folder in root.iterdir() if folder.is_dir()}
        total = sum(size for size, _ in copies.values()) + needed
        for folder, (size, _) in sorted(copies.items(), key=lambda copy: copy[1][1]):
            if total <= MAX_BYTES:
                return
            with (root / f"{folder.stem}.lock").open("w") as lock:
                if _try_lock(lock):
                    logger.info("deleting %s, %.1f GiB, to make room", folder, size / 2**30)
                    _remove(folder)
                    total -= size


def _remove(folder: Path) -> None:
    """Delete a copy whose lock is held; rename it first, so no process uses a half-deleted copy."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(FileNotFoundError):  # another process has deleted it
        folder.rename(partial)
    shutil.rmtree(partial, ignore_errors=True)


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Size of a copy in bytes and its time of last use; both 0 if it is being renamed."""
    size, last_used = 0, 0.0
    with suppress(FileNotFoundError):
        last_used = folder.stat().st_mtime
        for file in folder.rglob("*"):
            size += file.stat().st_size
    return size, last_used


def _try_lock(lock: IO[str]) -> bool:
    """Take the exclusive lock if no other process holds the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
