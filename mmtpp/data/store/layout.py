"""The layout of an event store: its folders, its tables, and the sizes of their row groups.

    data-REQUEST/tokenizer.json            tokenizer of the vocabulary
                 sequences/SSSSSS.parquet  sequences of shard S
                 frames/SSSSSS-BBBBBB.parquet  distinct images of block B of shard S
                 rejected/SSSSSS.parquet   records that were read and not kept
                 counts/SSSSSS.json        counts of shard S, written last
                 pieces/SSSSSS.arrow       events of shard S of the files, where files are joined
                 pieces/SSSSSS.pieces.json  its index, written last
                 pending/                  files between the steps of ``encode``, removed at the end
                 types.json                names of the types, if ``encode`` counted them
                 source_files.parquet      files of the source, with sizes and times
                 source_settings.json      what else all shards depend on
    manifest.json                          written after all other files

A reader reads row groups, and all of them are small. A row group of ``sequences`` contains either
whole sequences with about ``GROUP_EVENTS`` events in total, or one part of a longer sequence: if a
sequence begins in row group g, its event e is in row group ``g + e // PART_EVENTS``.
"""

import pyarrow as pa

SEQUENCES, FRAMES, REJECTED = "sequences", "frames", "rejected"
COUNTS, PENDING = "counts", "pending"
PIECES = "pieces"
TYPES, SOURCE_FILES = "types.json", "source_files.parquet"
SOURCE_SETTINGS = "source_settings.json"
GROUP_EVENTS = 4096  # about the number of events in a context of 64,000 tokens
PART_EVENTS = 4096
IMAGES_PER_BLOCK = 256  # image files that one task decodes
MAX_FRAMES_PER_GROUP = 32
FRAME_GROUP_BYTES = 2**20
DIGEST_BYTES = 16  # hash of a frame

SEQUENCE_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("split", pa.string()),  # of the whole sequence; "time" if the sequence is cut in time
        ("validation_from", pa.float64()),  # source unit; NaN if the sequence is not cut in time
        ("test_from", pa.float64()),
        ("part", pa.int32()),  # from 0; all parts but the last have PART_EVENTS events
        ("times", pa.list_(pa.float64())),  # E times, source unit, not decreasing
        ("types", pa.list_(pa.int16())),  # E type codes, 0 to 255
        ("texts", pa.list_(pa.string())),  # E texts as read
        ("text_ids", pa.list_(pa.int32())),  # tokens of all texts, one text after the other
        ("text_lengths", pa.list_(pa.int32())),  # E numbers of tokens
        ("frame", pa.list_(pa.int32())),  # E values: B * IMAGES_PER_BLOCK + row; -1 without image
        ("questions", pa.list_(pa.string())),  # about the sequence, as read; empty after part 0
        ("answers", pa.list_(pa.string())),  # one per question
        ("question_ids", pa.list_(pa.list_(pa.int32()))),  # tokens of each question
        ("answer_ids", pa.list_(pa.list_(pa.int32()))),
    ]
)
CUT_COLUMNS = ("validation_from", "test_from")
EVENT_COLUMNS = ("times", "types", "text_ids", "text_lengths", "frame")  # that samples need
DICTIONARY_COLUMNS = (
    "split",
    *(f"{name}.list.element" for name in ("types", "text_lengths", "frame")),
)
"""Columns of few distinct values, which Parquet writes by a dictionary."""
QUESTION_COLUMNS = ("questions", "answers", "question_ids", "answer_ids")
FRAME_SCHEMA = pa.schema(
    [
        ("image", pa.large_binary()),  # image_px * image_px * 3 bytes RGB
        ("digest", pa.binary(DIGEST_BYTES)),  # hash of the image
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("row", pa.int64()),  # from 0 (unreadable_image: in order of time); -1: the whole file
        ("cause", pa.string()),
        ("detail", pa.string()),
        ("record", pa.string()),
        ("sequence_id", pa.string()),  # empty if the record does not say
        ("time", pa.float64()),  # null if it cannot be read
        ("is_last", pa.bool_()),  # whether no kept event of the sequence comes after it in the file
        ("events", pa.int64()),  # events lost with it: 1, or all events of a file
    ]
)


def frames_per_group(image_px: int) -> int:
    """Number of frames in a row group.

    Args:
        image_px: Side of a frame, in pixels.

    Returns:
        A power of two, at most ``MAX_FRAMES_PER_GROUP``. A row group has at most
        ``FRAME_GROUP_BYTES`` bytes, unless a single frame has more.
    """
    num_fitting = max(1, FRAME_GROUP_BYTES // (3 * image_px**2))
    return min(MAX_FRAMES_PER_GROUP, 2 ** (num_fitting.bit_length() - 1))


def shard_file(shard: int, suffix: str = ".parquet") -> str:
    """Name of a shard's file in any folder of a store."""
    return f"{shard:06d}{suffix}"


def block_file(file: str, block: int) -> str:
    """Name of the file of a block's frames.

    Args:
        file: Name of the file of the shard's sequences.
        block: Number of the block in its shard.
    """
    return f"{file.removesuffix('.parquet')}-{block:06d}.parquet"
