"""The settings of a store's reader."""

from dataclasses import dataclass
from pathlib import Path

from mmtpp.storage.cache import DiskCache, default_cache_folder
from mmtpp.storage.filesystems import is_remote


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The location of a store, and the disk cache of its reader.

    Attributes:
        data_uri: Data folder of the store, a local path or a remote URI.
        fingerprint: Hash of the store's content.
        image_px: Side of the store's images, in pixels.
        cache_bytes: Maximum size of the disk cache; None for no cache. Tables of remote stores are
            cached, and large plans.
        cache_path: Folder of the disk cache; None for the user's cache folder.
        machine_labels: Ray labels of the machines that read the store, as pairs; empty for any
            machine.
        tick: Smallest difference between the store's times, in the source's unit; 0 if the times
            are continuous.
    """

    data_uri: str
    fingerprint: str
    image_px: int
    cache_bytes: int | None = None
    cache_path: str | None = None
    machine_labels: tuple[tuple[str, str], ...] = ()
    tick: float = 0.0

    def open_cache(self) -> DiskCache | None:
        """Open the disk cache of the store's tables; None if they are not cached."""
        return self.open_disk_cache() if is_remote(self.data_uri) else None

    def open_disk_cache(self) -> DiskCache | None:
        """Open the disk cache, wherever the store is; None if ``cache_bytes`` is None."""
        if self.cache_bytes is None:
            return None
        if self.cache_path is None:
            folder = default_cache_folder()
        else:
            folder = Path(self.cache_path).expanduser()
        return DiskCache(folder, max_bytes=self.cache_bytes)
