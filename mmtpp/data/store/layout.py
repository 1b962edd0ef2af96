"""What an event store looks like: its folders, its tables, and what its content depends on.

    data-REQUEST/tokenizer.json            of the vocabulary
                 sequences/SSSSSS.parquet  the sequences of shard S
                 frames/SSSSSS-BBBBBB.parquet  distinct images of block B of shard S
                 rejected/SSSSSS.parquet   records that were read and not kept
                 counts/SSSSSS.json        what the shard holds, written last
                 pending/                  between the steps of ``encode``; removed at the end
    manifest.json                          written last of all

The unit of reading is a row group, and all are small. A group of ``sequences`` holds whole
sequences of about ``GROUP_EVENTS`` events together, or one part of a longer sequence: event e of a
sequence that begins in group g stands in group ``g + e // PART_EVENTS``.
"""

import pyarrow as pa

SEQUENCES, FRAMES, REJECTED = "sequences", "frames", "rejected"
COUNTS, PENDING = "counts", "pending"
GROUP_EVENTS = 4096  # about as many as a context of 64,000 tokens holds
PART_EVENTS = 4096
IMAGES_PER_BLOCK = 256  # image files that one task decodes
MAX_FRAMES_PER_GROUP = 32
FRAME_GROUP_BYTES = 2**20
DIGEST_BYTES = 16  # of the hash of a frame

SEQUENCE_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("split", pa.string()),  # part of the whole sequence, or "time" where it is cut
        ("validation_from", pa.float64()),  # source unit, where it is cut; else NaN
        ("test_from", pa.float64()),
        ("part", pa.int32()),  # from 0; all but the last of a sequence have PART_EVENTS events
        ("times", pa.list_(pa.float64())),  # E, source unit, not decreasing
        ("types", pa.list_(pa.int16())),  # E, 0 to 255
        ("texts", pa.list_(pa.string())),  # E, as read
        ("text_ids", pa.list_(pa.int32())),  # all texts one after the other
        ("text_lengths", pa.list_(pa.int32())),  # E, tokens of each text
        ("frame", pa.list_(pa.int32())),  # E, B * IMAGES_PER_BLOCK + row; -1 without image
        ("questions", pa.list_(pa.string())),  # about the sequence, as read; in part 0
        ("answers", pa.list_(pa.string())),  # one a question
        ("question_ids", pa.list_(pa.list_(pa.int32()))),  # tokens of each
        ("answer_ids", pa.list_(pa.list_(pa.int32()))),
    ]
)
QUESTION_COLUMNS = ("questions", "answers", "question_ids", "answer_ids")
FRAME_SCHEMA = pa.schema(
    [
        ("image", pa.large_binary()),  # image_px * image_px * 3 bytes RGB
        ("digest", pa.binary(DIGEST_BYTES)),  # of the image
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("row", pa.int64()),  # in the file (unreadable_image: in order of time); -1: the whole file
        ("cause", pa.string()),
        ("detail", pa.string()),
        ("record", pa.string()),
        ("sequence_id", pa.string()),  # empty where the record does not say
        ("time", pa.float64()),  # null where it cannot be read
        ("is_last", pa.bool_()),  # no kept event of the sequence stands after it in the file
        ("events", pa.int64()),  # lost with it: 1, or those of a whole file
    ]
)


def frames_per_group(image_px: int) -> int:
    """Frames of a row group: a power of two, at most ``MAX_FRAMES_PER_GROUP`` and about a MiB."""
    fitting = max(1, FRAME_GROUP_BYTES // (3 * image_px**2))
    return min(MAX_FRAMES_PER_GROUP, 2 ** (fitting.bit_length() - 1))


def shard_file(shard: int, suffix: str = ".parquet") -> str:
    """Name of a shard's file in any folder of a store."""
    return f"{shard:06d}{suffix}"


def block_file(file: str, block: int) -> str:
    """Name of the frames of a block, from the name of its shard's sequences."""
    return f"{file.removesuffix('.parquet')}-{block:06d}.parquet"
