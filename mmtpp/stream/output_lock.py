"""One job per output folder on a local disk; the lock ends with its process."""

import fcntl
import os
from pathlib import Path

from mmtpp.core.errors import StorageError
from mmtpp.storage.client_errors import storage_errors

LOCK_FILE = ".lock"


class OutputLock:
    """Holds the lock of a local folder until it is closed, or the process ends.

    Args:
        folder: Local path of the folder, which is created.

    Raises:
        StorageError: Another job holds the lock, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        with storage_errors(str(folder), "lock the folder"):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise StorageError(
                "another job writes to this output",
                where=str(folder),
                cause="one job at a time lands a stream; the other one may still be ending",
                setting=f"stream.output = {folder}",
            ) from error

    def close(self) -> None:
        """Release the lock."""
        os.close(self._file)
