"""Files between the steps of ``encode``: image paths of a shard, and the outcome of decoding."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.data.store.layout import IMAGES_PER_BLOCK, PENDING, block_file, shard_file
from mmtpp.storage.client_errors import storage_errors
from mmtpp.storage.parquet import open_file, read_table, write_table
from mmtpp.storage.paths import READS_IN_FLIGHT, join

BAD_IMAGE = -2
DECODED_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # row of the image in the block's frames; -1 for an unreadable image
        ("digest", pa.binary()),  # hash of the frame
        ("problem", pa.string()),  # reason why an image is unreadable
    ]
)
_PATHS_SCHEMA = pa.schema([("path", pa.string())])


@dataclass(frozen=True, slots=True)
class DecodedImages:
    """The images of a shard in the order of their paths.

    Attributes:
        frame: (I,) int32 value of the column ``frame`` for each image; ``BAD_IMAGE`` if unreadable.
        digests: Hash of the image for each value of ``frame``.
        problems: Reason for each image why it is unreadable; empty for good images.
    """

    frame: NDArray[np.int32]
    digests: dict[int, bytes]
    problems: list[str]


def num_blocks(num_images: int) -> int:
    """Number of blocks that hold this number of images."""
    return -(-num_images // IMAGES_PER_BLOCK)


def write_image_paths(folder: str, shard: int, paths: list[str]) -> None:
    """Write the paths of a shard's images for ``DecodeImages``, one row group for each block."""
    table = pa.table({"path": paths}, schema=_PATHS_SCHEMA)
    write_table(_paths_uri(folder, shard), table, rows_per_group=IMAGES_PER_BLOCK)


def load_image_paths(folder: str, shard: int) -> list[str]:
    """Load the paths of a shard's images."""
    return read_table(_paths_uri(folder, shard))["path"].to_pylist()


def load_block_paths(folder: str, shard: int, block: int) -> list[str]:
    """Load the paths of the images of one block."""
    uri = _paths_uri(folder, shard)
    with storage_errors(uri, "read the table"):
        return open_file(uri).read_row_group(block)["path"].to_pylist()


def load_decoded_images(folder: str, shard: int, *, num_images: int) -> DecodedImages:
    """Load the outcome of ``DecodeImages`` for a shard. Equal images share one frame."""
    frames: list[NDArray[np.int64]] = []
    problems: list[str] = []
    first_frame: dict[bytes, int] = {}  # of each digest
    uris = [decoded_uri(folder, shard, block) for block in range(num_blocks(num_images))]
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        tables = list(pool.map(read_table, uris))
    for block, table in enumerate(tables):
        block_frames = [
            BAD_IMAGE if row < 0 else first_frame.setdefault(digest, block * IMAGES_PER_BLOCK + row)
            for row, digest in zip(
                table["row"].to_pylist(), table["digest"].to_pylist(), strict=True
            )
        ]
        frames.append(np.array(block_frames, dtype=np.int64))
        problems += table["problem"].to_pylist()
    digests = {frame: digest for digest, frame in first_frame.items()}
    return DecodedImages(np.concatenate(frames).astype(np.int32), digests, problems)


def decoded_uri(folder: str, shard: int, block: int) -> str:
    """URI of the file with the outcome of a block; the block is done when the file exists."""
    return join(folder, PENDING, "decoded", block_file(shard_file(shard), block))


def _paths_uri(folder: str, shard: int) -> str:
    return join(folder, PENDING, shard_file(shard, "-images.parquet"))
