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

from dataclasses import dataclass

import pyarrow as pa

from mmtpp.core.split import TimeSplit
from mmtpp.data.sources import make_reader
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.data.sources.types import TypeCodes

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


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """Everything the content of a store depends on, besides its input.

    Attributes:
        source_kind: name of the reader.
        source_uri: root of event files and images.
        source_file: the only event file, relative to it; empty for all that are there.
        type_names: Accepted names by code; empty for numbers, or to be found.
        finds_types: The names are those that occur; ``encode`` finds them.
        folds_rare: Types without a name become ``other``.
        columns: Mapping of a table's columns; None for the kinds that know theirs.
        csv: How CSV files are written.
        seconds_per_unit: of the times.
        image_px: side of the stored images.
        max_image_pixels: bound before decoding.
        max_image_bytes: bound of an image file.
        malformed_file: ``fail`` or ``reject``.
        validation_fraction, test_fraction: shares of the sequences, or of the events of each.
        tokenizer_size: of a tokenizer trained here; 0 when the model brings its own.
        split_by: ``hash``, ``given`` or ``time``.
        validation_from, test_from: instants in the source's unit, for ``time``; None for the
            shares.
    """

    source_kind: str
    source_uri: str
    source_file: str
    type_names: tuple[str, ...]
    finds_types: bool
    folds_rare: bool
    columns: Columns | None
    csv: CsvFormat
    seconds_per_unit: float
    image_px: int
    max_image_pixels: int
    max_image_bytes: int
    malformed_file: str
    validation_fraction: float
    test_fraction: float
    tokenizer_size: int
    split_by: str = "hash"
    validation_from: float | None = None
    test_from: float | None = None

    @property
    def time_split(self) -> TimeSplit:
        """How sequences are cut, for ``split_by = time``."""
        return TimeSplit(
            self.validation_from, self.test_from, self.validation_fraction, self.test_fraction
        )

    def reader(self) -> SourceReader:
        """The reader of the source."""
        return make_reader(
            self.source_kind,
            columns=self.columns,
            seconds_per_unit=self.seconds_per_unit,
            csv=self.csv,
        )

    def types(self) -> TypeCodes:
        """The codes of the event types."""
        return TypeCodes(self.type_names, self.folds_rare)
