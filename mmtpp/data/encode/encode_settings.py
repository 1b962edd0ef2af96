"""The settings that the content of an event store depends on."""

from dataclasses import dataclass

from mmtpp.core.split import TimeSplit
from mmtpp.data.sources import make_reader
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.data.sources.types import TypeCodes


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
