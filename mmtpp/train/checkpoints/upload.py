"""The upload of a checkpoint: checked, and repeated while the storage is unreachable."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from pyarrow.fs import FileSelector
from ray.train import Checkpoint

from mmtpp.compat.ray_hooks import train_storage
from mmtpp.core.errors import StorageError
from mmtpp.storage.client_errors import client_errors, first_line_without_queries

logger = logging.getLogger(__name__)


def _check_complete(folder: Path, uploaded: Checkpoint) -> None:
    """Check that every file was uploaded.

    Object stores write a file when it is closed, and ``pyarrow.fs.copy_files``, which Ray uses,
    ignores that a file of Python could not be closed (pyarrow 25.0.1).

    Args:
        folder: The checkpoint on the local disk.
        uploaded: Its copy in the storage.

    Raises:
        OSError: A file is missing or has another size.
    """
    assert uploaded.filesystem is not None
    root = uploaded.path.rstrip("/")
    selector = FileSelector(root, allow_not_found=True, recursive=True)
    infos = [info for info in uploaded.filesystem.get_file_info(selector) if info.is_file]
    sizes = {info.path.removeprefix(root).lstrip("/"): info.size for info in infos}
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    lost = sorted(name for name, size in names.items() if sizes.get(name) != size)
    if lost:
        raise OSError(f"{len(lost)} of {len(names)} files did not arrive, for example {lost[0]}")


def retrying_upload(patience_s: float) -> Callable[[Checkpoint, str], Checkpoint]:
    """Ray's own upload, repeated until every file has arrived.

    Args:
        patience_s: Seconds to repeat it.
    """
    storage = train_storage()  # read here, since the upload runs in a thread of its own
    deadline = time.monotonic() + patience_s  # set here, since Ray repeats the upload, too

    def upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
        pause_s = 1.0
        while True:
            try:
                uploaded = storage.persist_current_checkpoint(checkpoint, name)
                _check_complete(Path(checkpoint.path), uploaded)
                return uploaded
            except (PermissionError, FileNotFoundError):
                raise  # waiting does not help
            except (OSError, *client_errors()) as error:
                if time.monotonic() + pause_s > deadline:
                    raise StorageError(
                        f"the checkpoint cannot be uploaded: {first_line_without_queries(error)}",
                        where=f"{storage.experiment_fs_path}/{name}",
                        cause="the storage was unreachable for too long",
                        setting=f"training.upload_timeout_s = {patience_s:g}",
                    ) from error
                logger.warning(
                    "upload of %s failed, retrying in %g s: %s",
                    name,
                    pause_s,
                    first_line_without_queries(error),
                )
                time.sleep(pause_s)
                pause_s = min(60.0, 2 * pause_s)

    return upload
