"""The upload of a checkpoint, repeated while the storage is unreachable."""

import logging
import time
from collections.abc import Callable

from ray.train import Checkpoint

from mmtpp.compat.ray_hooks import train_storage
from mmtpp.core.errors import StorageError

logger = logging.getLogger(__name__)


def retrying_upload(patience_s: float) -> Callable[[Checkpoint, str], Checkpoint]:
    """Ray's own upload, repeated while the storage is unreachable.

    Args:
        patience_s: Seconds to repeat it.
    """
    storage = train_storage()  # read here, since the upload runs in a thread of its own
    deadline = time.monotonic() + patience_s  # set here, since Ray repeats the upload, too

    def upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
        pause_s = 1.0
        while True:
            try:
                return storage.persist_current_checkpoint(checkpoint, name)
            except (PermissionError, FileNotFoundError):
                raise  # waiting does not help
            except OSError as error:
                if time.monotonic() + pause_s > deadline:
                    raise StorageError(
                        f"the checkpoint cannot be uploaded: {error}",
                        where=f"{storage.experiment_fs_path}/{name}",
                        cause="the storage was unreachable for too long",
                        setting=f"training.upload_timeout_s = {patience_s:g}",
                    ) from error
                logger.warning("upload of %s failed, retrying in %g s: %s", name, pause_s, error)
                time.sleep(pause_s)
                pause_s = min(60.0, 2 * pause_s)

    return upload
