"""Second step of ``encode``: image files to small frames, in blocks of a bounded number.

Blocks rather than sequences are the unit of work, so a sequence with very many images is decoded by
as many processes as there are.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.errors import (
    DataError,
    FileTooLargeError,
    MissingFileError,
    MmtppError,
    error_to_json,
)
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.store.layout import (
    DIGEST_BYTES,
    FRAME_SCHEMA,
    FRAMES,
    IMAGES_PER_BLOCK,
    PENDING,
    block_file,
    frames_per_group,
    shard_file,
)
from mmtpp.model.processor import decode_image
from mmtpp.storage.parquet import open_file, read_table, write_table
from mmtpp.storage.paths import ahead, explained, join, join_inside, read_bytes

BAD_IMAGE = -2
READS_IN_FLIGHT = 16
REMEMBERED_BYTES = 64 * 2**20  # of decoded images a process keeps, for files that shards share
_PATHS_SCHEMA = pa.schema([("path", pa.string())])
_DECODED_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # in the block's frames; -1 for an unreadable image
        ("digest", pa.binary()),  # of the frame
        ("problem", pa.string()),  # of an unreadable image
    ]
)


@dataclass(frozen=True, slots=True)
class DecodedImages:
    """The images of a shard in the order of their paths.

    Attributes:
        frame: (I,) int32, value of the column ``frame`` for each; ``BAD_IMAGE`` if unreadable.
        digests: hash of the image behind each value of ``frame``.
        problems: I texts, empty for good images.
    """

    frame: NDArray[np.int32]
    digests: dict[int, bytes]
    problems: list[str]


def num_blocks(num_images: int) -> int:
    """Blocks of so many images."""
    return -(-num_images // IMAGES_PER_BLOCK)


def write_image_paths(folder: str, shard: int, paths: list[str]) -> None:
    """Leave the paths of a shard's images for the second step, a row group a block."""
    table = pa.table({"path": paths}, schema=_PATHS_SCHEMA)
    write_table(_paths_uri(folder, shard), table, rows_per_group=IMAGES_PER_BLOCK)


def image_paths(folder: str, shard: int) -> list[str]:
    """The paths of a shard's images."""
    return read_table(_paths_uri(folder, shard))["path"].to_pylist()


def decoded_images(folder: str, shard: int, *, num_images: int) -> DecodedImages:
    """What the second step made of a shard's images; equal ones share one frame."""
    frames: list[NDArray[np.int64]] = []
    problems: list[str] = []
    first_with: dict[bytes, int] = {}
    uris = [decoded_uri(folder, shard, block) for block in range(num_blocks(num_images))]
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        tables = list(pool.map(read_table, uris))
    for block, table in enumerate(tables):
        found = [
            BAD_IMAGE if row < 0 else first_with.setdefault(digest, block * IMAGES_PER_BLOCK + row)
            for row, digest in zip(
                table["row"].to_pylist(), table["digest"].to_pylist(), strict=True
            )
        ]
        frames.append(np.array(found, dtype=np.int64))
        problems += table["problem"].to_pylist()
    digests = {frame: digest for digest, frame in first_with.items()}
    return DecodedImages(np.concatenate(frames).astype(np.int32), digests, problems)


def decoded_uri(folder: str, shard: int, block: int) -> str:
    """Where the second step says what became of a block's images, once it has written them."""
    return join(folder, PENDING, "decoded", block_file(shard_file(shard), block))


class DecodeImages:
    """Decodes the images of one block, the work of a Ray Data task.

    Args:
        settings: of the source.
        folder: URI of the data folder.
    """

    def __init__(self, settings: EncodeSettings, folder: str) -> None:
        self._settings = settings
        self._folder = folder
        self._pool = ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="images")
        self._remembered: OrderedDict[str, bytes | str] = OrderedDict()

    def __call__(self, row: dict) -> dict:
        """Decode ``row["block"]`` of ``row["shard"]``; ``problem`` is not empty on failure."""
        shard, block = int(row["shard"]), int(row["block"])
        try:
            count = self._decode(shard, block)
        except MmtppError as error:
            return {"problem": error_to_json(error), "images": 0}
        return {"problem": "", "images": count}

    def _decode(self, shard: int, block: int) -> int:
        uri = _paths_uri(self._folder, shard)
        with explained(uri, "read the table"):
            paths: list[str] = open_file(uri).read_row_group(block)["path"].to_pylist()
        rows: dict[bytes, int] = {}
        frames: list[bytes] = []
        decoded: dict[str, list] = {"row": [], "digest": [], "problem": []}
        for image in self._images(paths):
            if isinstance(image, str):
                found = (-1, b"", image)
            else:
                digest = hashlib.blake2b(image, digest_size=DIGEST_BYTES).digest()
                if digest not in rows:
                    rows[digest] = len(frames)
                    frames.append(image)
                found = (rows[digest], digest, "")
            for name, value in zip(decoded, found, strict=True):
                decoded[name].append(value)
        uri = join(self._folder, FRAMES, block_file(shard_file(shard), block))
        table = pa.table({"image": frames, "digest": list(rows)}, schema=FRAME_SCHEMA)
        write_table(uri, table, rows_per_group=frames_per_group(self._settings.image_px))
        # last: the block then counts as decoded
        table = pa.table(decoded, schema=_DECODED_SCHEMA)
        write_table(decoded_uri(self._folder, shard, block), table)
        return len(paths)

    def _images(self, paths: list[str]) -> Iterator[bytes | str]:
        """The frame of each image in turn, or what is wrong with it; files are read ahead."""
        files = ahead(self._pool, self._read, paths, depth=READS_IN_FLIGHT)
        size = 3 * self._settings.image_px**2
        for path, file in zip(paths, files, strict=True):
            image = self._remembered.get(path)
            if image is not None:
                self._remembered.move_to_end(path)
            else:
                image = self._resize(self._load(path) if file is None else file)
                self._remembered[path] = image
                if len(self._remembered) * size > REMEMBERED_BYTES:
                    self._remembered.popitem(last=False)
            yield image

    def _read(self, path: str) -> bytes | str | None:
        """The file, unless its frame is remembered."""
        return None if path in self._remembered else self._load(path)

    def _load(self, path: str) -> bytes | str:
        settings = self._settings
        try:
            uri = join_inside(settings.source_uri, path)
            data = read_bytes(uri, max_bytes=settings.max_image_bytes)
        except FileTooLargeError as error:
            return f"{error.problem}; source.max_image_mib = {settings.max_image_bytes // 2**20}"
        except (DataError, MissingFileError) as error:
            return str(error)
        return data or "the file is empty"

    def _resize(self, file: bytes | str) -> bytes | str:
        if isinstance(file, str):
            return file
        settings = self._settings
        try:
            return decode_image(
                file, image_px=settings.image_px, max_pixels=settings.max_image_pixels
            )
        except DataError as error:
            return str(error)


def _paths_uri(folder: str, shard: int) -> str:
    return join(folder, PENDING, shard_file(shard, "-images.parquet"))
