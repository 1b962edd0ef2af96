"""Step of ``encode``, after reading or joining: decode image files to small frames.

The unit of work is a block of bounded size, not a sequence. Many processes can therefore decode the
images of one long sequence.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore

import pyarrow as pa

from mmtpp.core.errors import (
    DataError,
    FileTooLargeError,
    MissingFileError,
    MmtppError,
    error_to_json,
)
from mmtpp.data.encode.decoded_images import (
    DECODED_SCHEMA,
    decoded_uri,
    load_block_paths,
)
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.store.layout import (
    DIGEST_BYTES,
    FRAME_SCHEMA,
    FRAMES,
    block_file,
    frames_per_group,
    shard_file,
)
from mmtpp.model.processor import decode_image
from mmtpp.storage.image_files import locate_image, read_image
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import READS_IN_FLIGHT, join, prefetch

DECODES_AT_ONCE = 2  # a decoded image of the largest size takes hundreds of megabytes
CACHED_BYTES = 64 * 2**20  # decoded images that a process keeps, for files that shards share


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image that cannot be read or decoded.

    Attributes:
        reason: Text for the rejected record.
    """

    reason: str


class DecodeImages:
    """Decodes the images of a block. One call is the work of a Ray Data task.

    Args:
        settings: Source and image sizes.
        folder: URI of the data folder.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        self._settings = settings
        self._folder = folder
        self._pool = ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="images")
        self._decodes = BoundedSemaphore(DECODES_AT_ONCE)
        self._cache: OrderedDict[str, bytes | UnreadableImage] = OrderedDict()

    def __call__(self, row: dict) -> dict:
        """Decode block ``row["block"]`` of ``row["shard"]``; ``problem`` reports a failure."""
        shard, block = int(row["shard"]), int(row["block"])
        try:
            count = self._decode(shard, block)
        except MmtppError as error:
            return {"problem": error_to_json(error), "images": 0}
        return {"problem": "", "images": count}

    def _decode(self, shard: int, block: int) -> int:
        """Write the frames of a block, and return the number of its images."""
        paths = load_block_paths(self._folder, shard, block)
        row_of_digest: dict[bytes, int] = {}
        frames: list[bytes] = []
        outcomes: list[tuple[int, bytes, str]] = []
        for image in self._images(paths):
            if isinstance(image, UnreadableImage):
                outcomes.append((-1, b"", image.reason))
                continue
            digest = hashlib.blake2b(image, digest_size=DIGEST_BYTES).digest()
            if digest not in row_of_digest:
                row_of_digest[digest] = len(frames)
                frames.append(image)
            outcomes.append((row_of_digest[digest], digest, ""))
        uri = join(self._folder, FRAMES, block_file(shard_file(shard), block))
        table = pa.table({"image": frames, "digest": list(row_of_digest)}, schema=FRAME_SCHEMA)
        write_table(uri, table, rows_per_group=frames_per_group(self._settings.image_px))
        # written last: the block then counts as decoded
        columns = {
            name: [outcome[place] for outcome in outcomes]
            for place, name in enumerate(DECODED_SCHEMA.names)
        }
        table = pa.table(columns, schema=DECODED_SCHEMA)
        write_table(decoded_uri(self._folder, shard, block), table)
        return len(paths)

    def _images(self, paths: list[str]) -> Iterator[bytes | UnreadableImage]:
        """The frame of each image in order. Files are read and decoded ahead."""
        frames = prefetch(self._pool, self._frame, paths, depth=READS_IN_FLIGHT)
        frame_bytes = 3 * self._settings.image_px**2
        for path, frame in zip(paths, frames, strict=True):
            self._cache[path] = frame
            self._cache.move_to_end(path)
            if len(self._cache) * frame_bytes > CACHED_BYTES:
                self._cache.popitem(last=False)
            yield frame

    def _frame(self, path: str) -> bytes | UnreadableImage:
        """The frame of an image, from the cache or its file; runs in many threads."""
        frame = self._cache.get(path)
        return self._resize(self._load(path)) if frame is None else frame

    def _load(self, path: str) -> bytes | UnreadableImage:
        settings = self._settings
        try:
            uri = locate_image(path, source_uri=settings.source_uri, roots=settings.image_roots)
            data = read_image(uri, max_bytes=settings.max_image_bytes)
        except FileTooLargeError as error:
            limit = settings.max_image_bytes // 2**20
            return UnreadableImage(f"{error.problem}; source.max_image_mib = {limit}")
        except (DataError, MissingFileError) as error:
            return UnreadableImage(str(error))
        return data or UnreadableImage("the file is empty")

    def _resize(self, file: bytes | UnreadableImage) -> bytes | UnreadableImage:
        if isinstance(file, UnreadableImage):
            return file
        settings = self._settings
        try:
            with self._decodes:
                return decode_image(
                    file, image_px=settings.image_px, max_pixels=settings.max_image_pixels
                )
        except DataError as error:
            return UnreadableImage(str(error))
