"""Settings of events: where they come from, and how they are written as tokens."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from mmtpp.config.affects import Affects
from mmtpp.config.section import Fraction, Instant, Section, Uri
from mmtpp.core.events import MAX_TYPES
from mmtpp.core.representation.compression import RECENT_FULL
from mmtpp.core.split import parse_instant
from mmtpp.core.times.calendar import find_zone
from mmtpp.core.times.time_format import time_format_problem


class ColumnsSection(Section):
    """Names of a table's columns, for ``source.kind = columns``, or of the attributes of an event
    log, for ``xes``. Empty: the table has no such column. In JSON and Parquet, ``meta.time`` is the
    column of that name, or else the field ``time`` of the objects in the column ``meta``."""

    time: Annotated[str, Affects.STORE] = ""
    """Column of times: numbers in the source's unit, or dates. If a row holds a list of times, the
    row is a whole sequence."""
    date: Annotated[str, Affects.STORE] = ""
    """Column of dates, if the column ``time`` holds only the time of day. Empty: ``time`` holds
    whole times."""
    time_format: Annotated[str, Affects.STORE] = ""
    """Format of the times: ``number``; ``duration`` (H:MM:SS); ``epoch_s``, ``epoch_ms``,
    ``epoch_us`` or ``epoch_ns`` since 1970; or a format of Python's ``strptime``, such as
    ``%Y%m%d``. Empty: numbers, or dates in a common format of logs."""
    time_zone: Annotated[str, Affects.STORE] = "UTC"
    """Time zone of dates that state no zone, as an IANA name such as ``Europe/Berlin``."""
    year: Annotated[NonNegativeInt, Affects.STORE] = 0
    """Year of the first date in each file, for dates without a year, such as those of syslog. 0
    rejects such dates."""
    sequence: Annotated[str, Affects.STORE] = ""
    """Column of sequence ids; rows with the same id are one sequence. Empty: a file is one
    sequence."""
    type: Annotated[str, Affects.STORE] = ""
    """Column of event types: numbers or names. Empty: all events have the same type."""
    text: Annotated[str, Affects.STORE] = ""
    """Column of texts. Empty: events have no text."""
    image: Annotated[str, Affects.STORE] = ""
    """Column of images: paths relative to ``source.uri``, or to the folder of the file that it
    names; whole URIs below ``source.image_roots``; or the bytes of image files. Empty: events have
    no image."""
    interval: Annotated[str, Affects.STORE] = ""
    """Column of declared intervals. They are only compared with the intervals between the times."""
    split: Annotated[str, Affects.STORE] = ""
    """Column of split names, such as train, dev or test, for ``split.by = given``. Empty: the names
    of files and folders contain the split."""

    @model_validator(mode="after")
    def _has_valid_time_format(self) -> "ColumnsSection":
        problem = time_format_problem(self.time_format, time_zone=self.time_zone, year=self.year)
        if problem:
            raise ValueError(problem)
        return self


class CsvSection(Section):
    """Format of CSV files, for ``source.kind = columns``."""

    separator: Annotated[str, Field(max_length=1), Affects.STORE] = ""
    """Character between fields. Empty: comma, semicolon, tab or bar, whichever gives a header with
    the columns of ``source.columns``."""
    quote: Annotated[str, Field(min_length=1, max_length=1), Affects.STORE] = '"'
    """Character around a field that contains separators or line breaks."""
    escape: Annotated[str, Field(max_length=1), Affects.STORE] = ""
    """Character before a quote that is part of a text, such as a backslash. Empty: such a quote is
    doubled."""
    encoding: Annotated[str, Affects.STORE] = "utf-8"
    """Encoding of the files, by its Python name, such as ``cp1252`` or ``gb18030``."""

    @model_validator(mode="after")
    def _has_distinct_characters(self) -> "CsvSection":
        characters = [char for char in (self.separator, self.quote, self.escape) if char]
        if len(set(characters)) < len(characters):
            raise ValueError(
                f"separator = {self.separator!r}, quote = {self.quote!r} and escape = "
                f"{self.escape!r} must be different characters"
            )
        return self

    @field_validator("encoding")
    @classmethod
    def _is_text_encoding(cls, encoding: str) -> str:
        try:
            " ".encode(encoding)
        except LookupError as error:
            raise ValueError(
                f"{error}; set an encoding of texts by its Python name, such as utf-8 or cp1252"
            ) from None
        return encoding


class FlightsSection(Section):
    """Sequences of ``source.kind = flights``."""

    sequence: Annotated[Literal["aircraft", "airport_day"], Affects.STORE] = "aircraft"
    """Content of one sequence: the flights of an aircraft, or of an airport on one day."""


class TaxiSection(Section):
    """Input files of ``source.kind = taxi``."""

    trips: Annotated[Uri, Affects.STORE] = ""
    """CSV or Parquet file with trip records of New York's TLC, with zone ids."""
    zones: Annotated[Uri, Affects.STORE] = ""
    """Shapefile of the TLC taxi zones, ending in .shp. Its .dbf file is in the same folder."""
    sequence: Annotated[Literal["day", "zone"], Affects.STORE] = "day"
    """Content of one sequence: the trips of a day, or of a zone."""


class SourceSection(Section):
    """Where raw events come from."""

    kind: Annotated[
        Literal["flights", "taxi", "danmaku", "danmaku_qa", "mmtpp", "easytpp", "xes", "columns"],
        Affects.STORE,
    ] = "mmtpp"
    """Format of the raw events. ``mmtpp``: the published JSON, one file per sequence; ``danmaku``:
    Bilibili XML, one file per video; ``danmaku_qa``: questions about such videos, as JSON or JSON
    lines; ``easytpp``: pickles, JSON or rows of EasyTPP; ``columns``: CSV, TSV, JSON, JSON lines,
    Parquet, Arrow, tar shards or saved data sets of Hugging Face, with ``source.columns``;
    ``xes``: event logs of process mining; ``flights``, ``taxi``: the job builds the events, writes
    them to ``source.uri`` as ``mmtpp`` and reads them back."""
    uri: Annotated[Uri, Affects.STORE] = ""
    """Folder with the raw files, or one file: a local path, s3://, gs://, az:// or, for a data set
    of the hub, hf://datasets/OWNER/NAME@COMMIT. Image paths are relative to the folder."""
    seconds_per_unit: Annotated[PositiveFloat, Affects.STORE] = 1.0
    """Number of seconds in one unit of the source's times, above 0; 60 for minutes. It applies to
    ``mmtpp``, ``easytpp``, ``columns`` and ``xes``; the other kinds have a fixed unit."""
    types: Annotated[
        Literal["auto"] | Annotated[tuple[str, ...], Field(strict=False, max_length=MAX_TYPES)],
        Affects.STORE,
    ] = ()
    """Names of the event types in the order of their numbers, for ``mmtpp``, ``easytpp``,
    ``columns`` and ``xes``. ``auto``: the names in the data, most frequent first; the store keeps
    them for later data. Empty: types are numbers from 0 to 255."""
    rare_types: Annotated[Literal["reject", "other"], Affects.STORE] = "reject"
    """Treatment of events whose type has no name: ``reject`` rejects them, ``other`` gives them a
    common type named ``other``. With ``types = "auto"`` these are the rarest types, beyond the
    maximum number of types."""
    columns: ColumnsSection = ColumnsSection()
    """Names of a table's columns."""
    csv: CsvSection = CsvSection()
    """Format of CSV files."""
    flights: FlightsSection = FlightsSection()
    """Sequences of the flights source."""
    taxi: TaxiSection = TaxiSection()
    """Input files of the taxi source."""
    partitioning: Annotated[Literal["auto", "file", "sequence"], Affects.STORE] = "auto"
    """Where the events of a sequence are, for ``columns`` with ``source.columns.sequence`` and for
    ``xes``. ``file``: all in one file; ``prepare`` stops at an id in two files. ``sequence``: in
    any files, such as one for each day; ``prepare`` joins them in order of time. ``auto``: as
    ``file``, but if ids repeat, ``prepare`` starts again as with ``sequence``."""
    image_roots: Annotated[Annotated[tuple[Uri, ...], Field(strict=False)], Affects.STORE] = ()
    """Locations outside of ``uri``, such as ``s3://bucket/images`` or ``https://images.example``.
    Events may name images below them by whole URIs. ``prepare`` reads no other URIs, of web servers
    only public ones by https, and does not notice when such an image changes."""
    max_rejected_fraction: Annotated[float, Field(ge=0, le=1), Affects.NOTHING] = 0.01
    """Maximum share of rejected events, 0 to 1; with a larger share ``prepare`` fails."""
    malformed_file: Annotated[Literal["fail", "reject"], Affects.STORE] = "fail"
    """Treatment of an unreadable event file: ``fail`` stops the job, ``reject`` counts the file and
    records it as rejected."""
    max_image_pixels: Annotated[PositiveInt, Affects.STORE] = 50_000_000
    """Maximum number of pixels of an image, above 0. Larger images are rejected before they are
    decoded."""
    max_image_mib: Annotated[PositiveInt, Affects.STORE] = 64
    """Maximum size of an image file, in MiB, above 0. Larger files are rejected unread."""
    max_file_mib: Annotated[PositiveInt, Affects.NOTHING] = 1024
    """Maximum size of an event file, in MiB, above 0; a larger file stops ``prepare``. A process
    reads a whole file and needs about ten times its size in memory."""
    max_processes: Annotated[NonNegativeInt, Affects.NOTHING] = 0
    """Maximum number of processes of ``prepare``, with one CPU each. 0: the number of CPUs that the
    cluster has or can launch."""

    @model_validator(mode="after")
    def _names_the_times(self) -> "SourceSection":
        if self.kind == "columns" and not self.columns.time:
            raise ValueError("kind = columns needs source.columns.time, the column of times")
        return self

    @model_validator(mode="after")
    def _names_each_type_once(self) -> "SourceSection":
        repeated = {
            name for name in self.types if self.types != "auto" and self.types.count(name) > 1
        }
        if repeated:
            raise ValueError(f"types: {', '.join(sorted(repeated))} is named more than once")
        return self


class StoreSection(Section):
    """The event store that ``prepare`` writes and every later job reads."""

    uri: Annotated[Uri, Affects.NOTHING] = ""
    """Folder of the store; a local path, s3://, gs:// or az://. Jobs that read or write a store
    require it."""
    cache_gib: Annotated[NonNegativeFloat, Affects.NOTHING] = 20.0
    """Maximum disk space on every machine for a cache of remote stores and of large plans, in GiB,
    at least 0. 0 turns the cache off."""
    cache_path: Annotated[str, Affects.NOTHING] = ""
    """Folder of the cache on every machine. Empty: $MMTPP_CACHE, else mmtpp in $XDG_CACHE_HOME or
    ~/.cache."""
    machine_labels: Annotated[dict[str, str], Affects.NOTHING] = Field(default={})
    """Ray labels of the machines where Ray writes and reads the store, such as
    ``{role = "data"}``. Empty: any machine."""


class SplitSection(Section):
    """Which events train the model, and which are held out."""

    by: Annotated[Literal["hash", "given", "time"], Affects.STORE] = "hash"
    """How events are assigned to splits. ``hash``: whole sequences, by a stable hash of their ids,
    for ``danmaku_qa`` by the video; ``given``: whole sequences, by the name of their file or folder
    (train, dev, valid, test) or by ``source.columns.split``; ``time``: every sequence is cut in
    time, with training first and the test last."""
    validation_fraction: Annotated[Fraction, Affects.STORE] = 0.05
    """Share of the validation split, at least 0 and less than 1: of all sequences, or with
    ``by = time`` of the events of each sequence, the last ones before its test. ``given`` ignores
    it."""
    test_fraction: Annotated[Fraction, Affects.STORE] = 0.1
    """Share of the test split, at least 0 and less than 1, which only ``evaluate`` uses: of all
    sequences, or with ``by = time`` the last events of each sequence. ``given`` ignores it."""
    validation_from: Annotated[Instant, Affects.STORE] = ""
    """With ``by = time``, the time of the first validation event in all sequences: a number in the
    source's unit, or an ISO date, in UTC unless it has a time zone. Empty: ``validation_fraction``
    determines the time for each sequence."""
    test_from: Annotated[Instant, Affects.STORE] = ""
    """With ``by = time``, the time of the first test event in all sequences, in the format of
    ``validation_from``. Empty: ``test_fraction`` determines the time for each sequence."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "SplitSection":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must be less than 1")
        return self

    @model_validator(mode="after")
    def _has_instants_for_time(self) -> "SplitSection":
        if self.by != "time" and (self.validation_from or self.test_from):
            raise ValueError(f"validation_from and test_from need by = time; here {self.by}")
        return self

    @model_validator(mode="after")
    def _validates_before_test(self) -> "SplitSection":
        validation, test = (
            parse_instant(text, seconds_per_unit=1.0)
            for text in (self.validation_from, self.test_from)
        )
        # a date and a number are compared by prepare, which knows the unit of the source
        has_one_kind = _is_date(self.validation_from) == _is_date(self.test_from)
        if validation is not None and test is not None and has_one_kind and validation > test:
            raise ValueError(
                f"validation_from = {self.validation_from} is after test_from = {self.test_from}: "
                "validation comes before the test"
            )
        return self


def _is_date(instant: str) -> bool:
    try:
        float(instant)
    except ValueError:
        return True
    return False


class CompressionSection(Section):
    """Which events are similar to their past and become a similar-event token."""

    strategy: Annotated[
        Literal["none", "temporal", "anchored", "relative", "hybrid", "random_drop", "recent_full"],
        Affects.PLAN,
    ] = "temporal"
    """Rule for similar events. ``temporal``: the paper's rule, the interval differs by less than
    ``delta`` from the previous interval; ``anchored``: from the interval of the last full event;
    ``relative``: like ``temporal`` for the logarithms of the intervals; ``hybrid``: like
    ``temporal``, and type, frame and text agree; ``random_drop``: a control, events at random;
    ``recent_full``: no event is similar, and a window begins with older events of one token each,
    whose vector still holds their time, type, text and image; ``none``: no event is similar."""
    delta: Annotated[NonNegativeFloat, Affects.PLAN] = 0.2
    """Threshold of the strategy, the paper's capital delta, in the source's time unit, at least 0;
    for ``relative`` a difference of natural logarithms. 0 compresses no event."""
    run_encoding: Annotated[Literal["token", "run_length"], Affects.PLAN] = "token"
    """Encoding of consecutive similar events. ``token``: one token per event (the paper);
    ``run_length``: one token for all, their number and the sum of their intervals."""
    min_text_similarity: Annotated[float, Field(ge=0, le=1), Affects.PLAN] = 0.5
    """Minimum share of common distinct tokens (Jaccard index) in two texts that agree, 0 to 1;
    ``hybrid`` only."""
    drop_fraction: Annotated[Fraction, Affects.PLAN] = 0.5
    """Probability that an event is similar, at least 0 and less than 1; ``random_drop`` only."""
    older_fraction: Annotated[Fraction, Affects.PLAN] = 0.25
    """Part of ``window.max_tokens`` for older events of one token each, at least 0 and less than 1;
    ``recent_full`` only."""

    def older_tokens(self, max_tokens: int) -> int:
        """Maximum number of tokens of a window's older events; 0 unless it is ``recent_full``.

        Args:
            max_tokens: Maximum number of tokens of the window.
        """
        return int(max_tokens * self.older_fraction) if self.strategy == RECENT_FULL else 0


class TemplateSection(Section):
    """How an event is written as tokens."""

    style: Annotated[Literal["paper", "compact", "minimal", "dense", "soft"], Affects.PLAN] = (
        "paper"
    )
    """Layout of an event. ``paper``: the published layout, token for token; ``compact``: without
    its blanks and line breaks; ``minimal``: only the tokens that parsing needs; ``dense``: like
    ``minimal``, without the token that ends a text; ``soft``: one token per event, whose vector
    holds type, memory, text and image. A model of soft tokens is trained by ``pretrain`` alone and
    forecasts densities, like the expert (``model.preset = "expert"``); it needs
    ``compression.strategy = none``."""
    time_bytes: Annotated[Literal[2, 3, 4], Affects.PLAN] = 4
    """Number of bytes of the time code. 4 bytes are the paper's float32, 2 bytes resolve an
    interval to 0.4 %."""
    images: Annotated[Literal["per_event", "on_change", "none"], Affects.PLAN] = "per_event"
    """Images that are shown: the image of every event, only an image that differs from the
    previous one, or none."""
    image_px: Annotated[int, Field(ge=56, le=560, multiple_of=28), Affects.STORE] = 56
    """Side of the square to which ``prepare`` resizes every image, in pixels, a multiple of 28 from
    56 to 560. 56 pixels are 4 tokens."""
    calendar: Annotated[Literal["none", "hour", "minute"], Affects.PLAN] = "none"
    """Calendar that is written after the interval of every event in full, as text tokens.
    ``hour``: day of week and hour, such as ``Tue08``; ``minute``: day of week and time of day, such
    as ``Tue08:15``; ``none``: no calendar. Only for times that are dates."""
    time_zone: Annotated[str, Affects.PLAN] = "UTC"
    """IANA name of the calendar's time zone, such as ``Europe/Berlin``."""
    types: Annotated[Literal["code", "words"], Affects.PLAN] = "code"
    """How a type is written. ``code``: one byte token; ``words``: its name follows as text tokens,
    at most 6, which the model reads and never has to predict. For pretrained models and types with
    names; all names take the tokens of the longest one."""
    max_text_tokens: Annotated[NonNegativeInt, Affects.PLAN] = 0
    """Maximum length of an event's text, in tokens. Longer texts are truncated in samples and
    counted; the store keeps them whole. 0 truncates none."""

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        find_zone(name)
        return name


class WindowSection(Section):
    """How sequences are cut into samples."""

    max_tokens: Annotated[int, Field(ge=64), Affects.PLAN] = 4096
    """Maximum length of a packed sample, in tokens, images included; at least 64."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9), Affects.PLAN] = 0.0
    """Share of a training window that repeats the end of the previous window, 0 to 0.9. The
    repeated events are read but are no labels."""
    long_events: Annotated[Literal["truncate", "fail"], Affects.NOTHING] = "truncate"
    """Treatment of an event that does not fit ``max_tokens``. ``truncate``: its text is truncated
    to at most half of ``max_tokens``, and a question in words that does not fit is omitted; both
    are counted and named. ``fail``: the job fails and names the first such event."""
    time_from: Annotated[float | None, Affects.PLAN] = None
    """Start of the time range of used events, in the source's unit, inclusive. If it is not
    set, the range begins with the first event."""
    time_to: Annotated[float | None, Affects.PLAN] = None
    """End of the time range of used events, in the source's unit, exclusive. If it is not
    set, the range ends with the last event."""
