"""Folders of a bucket copied to the local disk once for all processes of a machine."""

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
MAX_BYTES = 64 * 2**30  # of copies together; those in use stay whatever their size


@contextmanager
def node_copy(uri: str, *, keep: bool = True) -> Iterator[Path]:
    """A copy of a remote folder, which is not to be changed.

    The first process of the machine copies while the others wait. A folder whose files have
    changed is another one.

    Args:
        uri: of the folder.
        keep: the copy for processes to come; else the last one that uses it removes it.

    Raises:
        StorageError: it cannot be read, or there is no safe place for it.
    """
    files = [(info.path, info.size, str(info.mtime)) for info in list_files(uri, "")]
    name = hashlib.sha256(repr((uri, files)).encode()).hexdigest()[:32]
    root = _root()
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)  # others may use it too, nobody may delete it
            if folder.exists():
                break
            fcntl.flock(lock, fcntl.LOCK_UN)
            # never wait to be alone: who has the copy by now may be waiting for this process
            if _locked(lock):
                if not folder.exists():
                    _make_room(root, sum(size for _, size, _ in files))
                    partial = root / f"{name}.partial"
                    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
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
                if _locked(lock):
                    _remove(folder)


def _root() -> Path:
    root = default_cache_folder() / SUBFOLDER
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = root.lstat()
    except OSError as error:
        raise StorageError(
            f"the cache folder cannot be made: {error}",
            where=str(root),
            cause="the environment variable MMTPP_CACHE chooses another",
        ) from error
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
        raise StorageError(
            "others could write into the cache folder",
            where=str(root),
            cause="the environment variable MMTPP_CACHE chooses another",
        )
    return root


def _make_room(root: Path, needed: int) -> None:
    """Delete copies that nobody uses, those used longest ago first, until another one fits."""
    with (root / "room.lock").open("w") as room:
        fcntl.flock(room, fcntl.LOCK_EX)
        copies = {each: _size_and_time(each) for each in root.iterdir() if each.is_dir()}
        total = sum(size for size, _ in copies.values()) + needed
        for each, (size, _) in sorted(copies.items(), key=lambda copy: copy[1][1]):
            if total <= MAX_BYTES:
                return
            with (root / f"{each.stem}.lock").open("w") as lock:
                if _locked(lock):
                    logger.info("deleting %s, %.1f GiB, to make room", each, size / 2**30)
                    _remove(each)
                    total -= size


def _remove(folder: Path) -> None:
    """Delete a copy whose lock is held; half of one must never be taken for the whole."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(FileNotFoundError):  # another process was first
        folder.rename(partial)
    shutil.rmtree(partial, ignore_errors=True)


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Bytes of a copy and when it was last used; nothing of one that is being renamed."""
    size, used = 0, 0.0
    with suppress(FileNotFoundError):
        used = folder.stat().st_mtime
        for file in folder.rglob("*"):
            size += file.stat().st_size
    return size, used


def _locked(lock: IO[str]) -> bool:
    """Take a lock if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
