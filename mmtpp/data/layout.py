"""What an event store looks like: the schemas of its tables, and what its content depends on."""

from dataclasses import dataclass

import pyarrow as pa

from mmtpp.data.sources import make_reader
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import SourceReader

SEQUENCE_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("split", pa.string()),
        ("times", pa.list_(pa.float64())),  # E, source unit, not decreasing
        ("types", pa.list_(pa.int16())),  # E, 0 to 255
        ("texts", pa.list_(pa.string())),  # E, as read
        ("text_ids", pa.list_(pa.int32())),  # all texts one after the other
        ("text_offsets", pa.list_(pa.int64())),  # E + 1, into text_ids
        ("frame", pa.list_(pa.int32())),  # E, into frames; -1 without image
        ("frames", pa.list_(pa.binary())),  # distinct images, image_px * image_px * 3 bytes RGB
        ("questions", pa.list_(pa.string())),  # about the sequence, as read
        ("answers", pa.list_(pa.string())),  # one a question
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("row", pa.int64()),  # in the file (unreadable_image: in order of time); -1: the whole file
        ("cause", pa.string()),
        ("detail", pa.string()),
        ("record", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """Everything the content of a store depends on, besides its input.

    Attributes:
        source_kind: name of the reader.
        source_uri: root of event files and images.
        type_names: accepted names by code; empty for numbers.
        columns: mapping of a table's columns; None for the kinds that know theirs.
        seconds_per_unit: of the times.
        image_px: side of the stored images.
        max_image_pixels: bound before decoding.
        malformed_file: ``fail`` or ``reject``.
        validation_fraction, test_fraction: of sequences.
        tokenizer_size: of a tokenizer trained here.
    """

    source_kind: str
    source_uri: str
    type_names: tuple[str, ...]
    columns: Columns | None
    seconds_per_unit: float
    image_px: int
    max_image_pixels: int
    malformed_file: str
    validation_fraction: float
    test_fraction: float
    tokenizer_size: int

    def reader(self) -> SourceReader:
        """The reader of the source."""
        return make_reader(
            self.source_kind, columns=self.columns, seconds_per_unit=self.seconds_per_unit
        )
