"""The settings that the content of an event store depends on."""

from dataclasses import dataclass

from mmtpp.core.split import TimeSplit
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.data.sources.type_codes import TypeCodes

AUTO, FILE, SEQUENCE = "auto", "file", "sequence"  # values of ``partitioning``


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """All settings that determine the content of a store, besides its input.

    The hash of these settings identifies a store: a renamed or added field makes new stores.

    Attributes:
        source_kind: Name of the reader.
        source_uri: Root folder of event files and images.
        source_file: Path of the only event file to read, relative to the root; empty reads all.
        type_names: Accepted type names by code; empty where types are numbers, or before the
            names of ``finds_types`` are known.
        finds_types: Whether ``encode`` takes the type names that occur in the source.
        folds_rare: Whether types without a name become ``other``.
        columns: Mapping of a table's columns; None for kinds with fixed columns.
        csv: Format of CSV files.
        seconds_per_unit: Seconds in one unit of the times.
        image_px: Side length of the stored images, in pixels.
        max_image_pixels: Largest number of pixels of an image, checked before decoding.
        max_image_bytes: Largest size of an image file.
        image_roots: Locations outside of the source whose images events may name by whole URIs.
        malformed_file: Treatment of a file that cannot be read: ``fail`` or ``reject``.
        validation_fraction, test_fraction: Shares of the sequences, or with ``split_by = time``
            of each sequence's events.
        tokenizer_size: Number of entries of a tokenizer trained here; 0 uses the model's.
        split_by: Rule that assigns the splits: ``hash``, ``given`` or ``time``.
        partitioning: Where the events of a sequence are: ``file``, all in one file; ``sequence``,
            in any files, and ``encode`` joins them; ``auto``, in one file unless ids repeat.
        validation_from, test_from: Start times of the splits in the source's unit, for
            ``split_by = time``; None uses the shares.
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
    partitioning: str = FILE
    image_roots: tuple[str, ...] = ()
    validation_from: float | None = None
    test_from: float | None = None

    @property
    def time_split(self) -> TimeSplit:
        """Cuts of the sequences, for ``split_by = time``."""
        return TimeSplit(
            self.validation_from, self.test_from, self.validation_fraction, self.test_fraction
        )

    def build_reader(self) -> SourceReader:
        """Build the reader of the source."""
        return build_reader(
            self.source_kind,
            columns=self.columns,
            seconds_per_unit=self.seconds_per_unit,
            csv=self.csv,
        )

    def build_type_codes(self) -> TypeCodes:
        """Build the mapping from event types to codes."""
        return TypeCodes(self.type_names, self.folds_rare)
