"""Files and messages to checked events, with the readers and rules of ``prepare``."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import DataError
from mmtpp.core.events import EventSequence, Rejected
from mmtpp.data.encode.parse_files import reject_file
from mmtpp.data.encode.type_names import choose_type_names, count_types_in_file
from mmtpp.data.from_config import build_columns, build_type_names
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import build_columns_reader
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile, SourceReader
from mmtpp.data.sources.type_codes import OTHER, TypeCodes
from mmtpp.storage.paths import join, join_inside
from mmtpp.stream.arrivals import Arrival
from mmtpp.stream.landed_events import EVENT_SCHEMA


class EventParser:
    """Parses files, or messages that are written as a file.

    Attributes:
        reader: Reader of the source.
        times_are_dates: Whether the times count from 1970; None before the first event.

    Args:
        source: How the events are read.
        reader: Reader of the files.
        where: Location of the input, for messages.
        image_root: Folder to which paths of images are relative; empty for none.
        times_are_dates: The attribute, of an earlier job.
    """

    def __init__(
        self,
        source: SourceSection,
        reader: SourceReader,
        *,
        where: str,
        image_root: str,
        times_are_dates: bool | None,
    ) -> None:
        self.reader = reader
        self.times_are_dates = times_are_dates
        self._source, self._where, self._image_root = source, where, image_root
        self._names, self._finds_types = build_type_names(source, self.reader)
        self._folds_rare = source.rare_types == OTHER

    def parse(self, partition: str, path: str, content: bytes) -> Arrival:
        """Parse a file.

        Args:
            partition: Part of the source to which the file belongs.
            path: Path relative to the source; its suffix says the format.
            content: Content of the file.

        Raises:
            DataError: The file is malformed and the settings do not reject it, or it has more types
                than a store can have.
        """
        names = self._names_of(path, content)
        types = TypeCodes(names, self._folds_rare and OTHER in names)
        try:
            parsed = read_file(self.reader, path, content, types=types)
        except MalformedFileError as error:
            parsed = reject_file(
                path, error, where=self._where, malformed_file=self._source.malformed_file
            )
        parsed = self._with_one_kind_of_times(path, parsed)
        splits = parsed.split_by_sequence()
        tables = [
            self._table(sequence, split, names)
            for sequence, split in zip(parsed.sequences, splits, strict=True)
        ]
        events = pa.concat_tables([EVENT_SCHEMA.empty_table(), *tables])
        return Arrival(partition, events, parsed.rejected, parsed.counts)

    def _names_of(self, path: str, content: bytes) -> tuple[str, ...]:
        """Names of the types that the file may have; those in the file for ``auto``."""
        if not self._finds_types:
            return self._names
        counts = count_types_in_file(self.reader, path, content)
        return choose_type_names(
            counts, known=(), folds_rare=self._folds_rare, where=join(self._where, path)
        )

    def _with_one_kind_of_times(self, path: str, parsed: ParsedFile) -> ParsedFile:
        """Reject the events of a file with dates among numbers, or with numbers among dates."""
        if not any(map(len, parsed.sequences)):
            return parsed
        are_dates = parsed.counts.num_dated > 0
        if self.times_are_dates is None:
            self.times_are_dates = are_dates
        if are_dates == self.times_are_dates:
            return parsed
        kinds = ("dates", "numbers") if are_dates else ("numbers", "dates")
        detail = f"times are {kinds[0]}, those of earlier events are {kinds[1]}"
        rejected = [
            record
            for sequence in parsed.sequences
            for record in _all_rejected(path, sequence, detail)
        ]
        counts = replace(parsed.counts, num_dated=0, num_folded=0, num_disagreeing=0)
        return ParsedFile([], [*parsed.rejected, *rejected], counts)

    def _table(self, sequence: EventSequence, split: str, names: tuple[str, ...]) -> pa.Table:
        size = len(sequence)
        codes = sequence.types.tolist()
        columns = {
            "sequence": [sequence.sequence_id] * size,
            "time": sequence.times,
            "type": [names[code] if names else str(code) for code in codes],
            "text": sequence.texts,
            "image": list(map(self._image, sequence.images)),
            "split": [split] * size,
        }
        return pa.table(
            [pa.array(columns[field.name], field.type) for field in EVENT_SCHEMA], EVENT_SCHEMA
        )

    def _image(self, image: str | None) -> str | None:
        """The whole URI of an image, because the landed events lie in another folder."""
        if image is None or not self._image_root or "://" in image or image.startswith("data:"):
            return image
        try:
            return join_inside(self._image_root, image)
        except DataError:
            return image  # ``prepare`` rejects the event with the same reason


def _all_rejected(path: str, sequence: EventSequence, detail: str) -> list[Rejected]:
    return [
        Rejected(
            path=path,
            row=-1,  # the file as a whole has the other kind of times
            cause="ambiguous_time",
            detail=detail,
            record=json.dumps({"time": time, "type": code, "text": text})[:1000],
            sequence_id=sequence.sequence_id,
            time=time,
        )
        for time, code, text in zip(
            sequence.times.tolist(), sequence.types.tolist(), sequence.texts, strict=True
        )
    ]


def newest_time(arrival: Arrival) -> float | None:
    """Time of the newest event that arrived; None without events."""
    times = arrival.events["time"].to_numpy()
    return float(np.max(times)) if len(times) else None


def message_reader(source: SourceSection) -> SourceReader:
    """The reader of messages that are written as JSON lines.

    A message may lack fields that others have, so no field is missed before a record is checked.
    """
    columns = build_columns(source)
    return build_columns_reader(
        columns, seconds_per_unit=source.seconds_per_unit, optional=tuple(columns.names)
    )
