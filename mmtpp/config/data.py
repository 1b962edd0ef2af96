"""Settings of events: where they come from, how they are written as tokens."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mmtpp.config.section import Fraction, Instant, Section, Uri
from mmtpp.config.shapes import Shapes
from mmtpp.core.events import MAX_TYPES


class Columns(Section):
    """Columns of a table, ``source.kind = columns``; empty for one there is not."""

    time: Annotated[str, Shapes.STORE] = ""
    """Column of times: numbers in the source's unit, or dates. A list makes its row a whole
    sequence."""
    date: Annotated[str, Shapes.STORE] = ""
    """Column of the date, where ``time`` has the time of day alone."""
    time_format: Annotated[str, Shapes.STORE] = ""
    """How times are written. Empty: numbers, or a date in one of the usual forms of logs;
    ``number``; ``duration``, H:MM:SS; ``epoch_s``, ``epoch_ms``, ``epoch_us``, ``epoch_ns`` since
    1970; or a format of Python's ``strptime``, such as ``%Y%m%d``."""
    time_zone: Annotated[str, Shapes.STORE] = "UTC"
    """Time zone of dates that state none, by its IANA name, such as ``Europe/Berlin``."""
    year: Annotated[NonNegativeInt, Shapes.STORE] = 0
    """Year of the first date in each file, where dates have none, as those of syslog; 0 refuses
    such dates."""
    sequence: Annotated[str, Shapes.STORE] = ""
    """What the rows of one sequence share; empty: a file is one sequence."""
    type: Annotated[str, Shapes.STORE] = ""
    """Type codes or names; empty: all events are of one type."""
    text: Annotated[str, Shapes.STORE] = ""
    """Texts."""
    image: Annotated[str, Shapes.STORE] = ""
    """Image paths relative to ``source.uri``."""
    interval: Annotated[str, Shapes.STORE] = ""
    """Declared waiting times; only compared with the recomputed ones."""
    split: Annotated[str, Shapes.STORE] = ""
    """Parts by name, such as train, dev or test, for ``split.by = given``; empty: the names of
    files and folders say them."""


class Csv(Section):
    """How CSV files are written."""

    separator: Annotated[str, Field(max_length=1), Shapes.STORE] = ""
    """Character between fields. Empty: the one of comma, semicolon, tab and bar by which the header
    has the columns of ``source.columns``."""
    quote: Annotated[str, Field(min_length=1, max_length=1), Shapes.STORE] = '"'
    """Character around a field that holds separators or line breaks."""
    escape: Annotated[str, Field(max_length=1), Shapes.STORE] = ""
    """Character before a quote that belongs to the text, such as a backslash. Empty: such quotes
    are doubled."""
    encoding: Annotated[str, Shapes.STORE] = "utf-8"
    """Encoding of the files, by Python's name, such as ``cp1252`` or ``gb18030``."""


class Taxi(Section):
    """What ``source.kind = taxi`` is built from."""

    trips: Annotated[Uri, Shapes.STORE] = ""
    """Trip records of New York's TLC with zone ids, a CSV or Parquet file."""
    zones: Annotated[Uri, Shapes.STORE] = ""
    """The TLC taxi zone shapefile, ending in .shp, its .dbf beside it."""
    sequence: Annotated[Literal["day", "zone"], Shapes.STORE] = "day"
    """What one sequence is."""


class Source(Section):
    """Where raw events come from."""

    kind: Annotated[
        Literal["flights", "taxi", "danmaku", "danmaku_qa", "mmtpp", "easytpp", "columns"],
        Shapes.STORE,
    ] = "mmtpp"
    """``mmtpp``: the published JSON, one file a sequence; ``danmaku``: Bilibili XML, one file a
    video; ``danmaku_qa``: its questions, JSON or JSON lines; ``easytpp``: pickles, JSON or rows of
    EasyTPP; ``columns``: CSV, JSON lines or Parquet by ``source.columns``; ``flights``, ``taxi``:
    built, written to ``source.uri`` as ``mmtpp`` and read back."""
    uri: Annotated[Uri, Shapes.STORE] = ""
    """Folder with the raw files, or one file of them; a local path or s3://. Paths of images are
    relative to the folder."""
    flights_sequence: Annotated[Literal["aircraft", "airport_day"], Shapes.STORE] = "aircraft"
    """What one sequence of the demo source is."""
    seconds_per_unit: Annotated[PositiveFloat, Shapes.STORE] = 1.0
    """Seconds in one unit of the source's times; 60 for minutes. For ``mmtpp``, ``easytpp`` and
    ``columns``: the other kinds know theirs."""
    types: Annotated[
        Literal["auto"] | Annotated[tuple[str, ...], Field(strict=False, max_length=MAX_TYPES)],
        Shapes.STORE,
    ] = ()
    """Names of the event types in the order of their codes; ``auto``: the names that occur, the
    most frequent first, kept by the store for later data. Empty: types are numbers from 0 to 255.
    For ``mmtpp``, ``easytpp`` and ``columns``."""
    rare_types: Annotated[Literal["reject", "other"], Shapes.STORE] = "reject"
    """Events of a type without a name: ``reject`` them, or fold them into one type named ``other``.
    With ``types = "auto"``, which names as many as fit, these are the rarest."""
    columns: Columns = Columns()
    """Columns of a table."""
    csv: Csv = Csv()
    """How CSV files are written, for ``kind = columns``."""
    taxi: Taxi = Taxi()
    """Files the taxi source is built from."""
    max_rejected_fraction: Annotated[float, Field(ge=0, le=1), Shapes.NOTHING] = 0.01
    """``prepare`` fails when more than this share of the events is rejected."""
    malformed_file: Annotated[Literal["fail", "reject"], Shapes.STORE] = "fail"
    """What an unreadable event file does: stop the job, or be counted and kept as rejected."""
    max_image_pixels: Annotated[PositiveInt, Shapes.STORE] = 50_000_000
    """Images with more pixels are rejected before they are decoded."""
    max_image_mib: Annotated[PositiveInt, Shapes.STORE] = 64
    """Larger image files are rejected unread."""
    max_file_mib: Annotated[PositiveInt, Shapes.NOTHING] = 1024
    """``prepare`` refuses larger event files: a process reads a file whole, and needs some ten
    times its size in memory."""
    max_workers: Annotated[NonNegativeInt, Shapes.NOTHING] = 0
    """Processes of ``prepare``, a CPU each; 0 for as many as the cluster has or can bring."""

    @model_validator(mode="after")
    def _names_the_times(self) -> "Source":
        if self.kind == "columns" and not self.columns.time:
            raise ValueError("kind = columns needs source.columns.time, the column of times")
        return self

    @model_validator(mode="after")
    def _names_each_type_once(self) -> "Source":
        repeated = {
            name for name in self.types if self.types != "auto" and self.types.count(name) > 1
        }
        if repeated:
            raise ValueError(f"types: {', '.join(sorted(repeated))} is named more than once")
        return self


class Store(Section):
    """The event store that ``prepare`` writes and every later job reads."""

    uri: Annotated[Uri, Shapes.NOTHING] = ""
    """Folder of the store; a local path or s3://."""
    cache_gib: Annotated[NonNegativeFloat, Shapes.NOTHING] = 20.0
    """Disk that every machine may use to keep what it read of stores on S3; 0 for none."""
    cache_path: Annotated[str, Shapes.NOTHING] = ""
    """Folder of that cache on every machine. Empty: $MMTPP_CACHE, else mmtpp in $XDG_CACHE_HOME or
    ~/.cache."""
    machine_labels: Annotated[dict[str, str], Shapes.NOTHING] = Field(default={})
    """Ray labels of the machines where Ray Data writes and reads the store, as ``{role = "data"}``.
    Empty: any machine."""


class Split(Section):
    """Which events train the model, and which are held out."""

    by: Annotated[Literal["hash", "given", "time"], Shapes.STORE] = "hash"
    """How the parts are made. ``hash``: whole sequences, by a stable hash of their ids, for
    ``danmaku_qa`` of the video that is asked about; ``given``: whole sequences, as the name of
    their file or folder says (train, dev, valid, test), or ``source.columns.split``; ``time``:
    every sequence is cut in time, training before, test after."""
    validation_fraction: Annotated[Fraction, Shapes.STORE] = 0.05
    """Share used for validation during training: of the sequences, or with ``by = time`` of the
    events of each sequence, those just before its test. ``given`` ignores it."""
    test_fraction: Annotated[Fraction, Shapes.STORE] = 0.1
    """Share used only by ``evaluate``: of the sequences, or with ``by = time`` the last events of
    each sequence. ``given`` ignores it."""
    validation_from: Annotated[Instant, Shapes.STORE] = ""
    """With ``by = time``, the instant from which events are for validation, in all sequences: a
    number in the source's unit, or an ISO date, UTC unless it says otherwise. Empty: the instant
    that leaves ``validation_fraction`` of each sequence's events before its test."""
    test_from: Annotated[Instant, Shapes.STORE] = ""
    """With ``by = time``, the instant from which events are for the test, in all sequences, given
    as ``validation_from`` is. Empty: the instant that leaves ``test_fraction`` of each sequence's
    events."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "Split":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must be below 1")
        return self

    @model_validator(mode="after")
    def _has_instants_for_time(self) -> "Split":
        if self.by != "time" and (self.validation_from or self.test_from):
            raise ValueError(f"validation_from and test_from need by = time; here {self.by}")
        return self


class Compression(Section):
    """Which events are written as one similar-event token."""

    strategy: Annotated[
        Literal["none", "temporal", "anchored", "relative", "hybrid", "random_drop"], Shapes.PLAN
    ] = "temporal"
    """Which events are similar. ``temporal``: the paper's rule, the interval differs by less than
    ``delta`` from the one directly before; ``anchored``: from that of the last kept event;
    ``relative``: as ``temporal`` for the logarithms of the intervals; ``hybrid``: as ``temporal``,
    and type, frame and text agree; ``random_drop``: a control, by chance; ``none``: keep all."""
    delta: Annotated[NonNegativeFloat, Shapes.PLAN] = 0.2
    """Threshold, the paper's capital delta, in the source's time unit; for ``relative`` a
    difference of natural logarithms."""
    run_encoding: Annotated[Literal["token", "run_length"], Shapes.PLAN] = "token"
    """``token``: each similar event is one token (the paper); ``run_length``: a run of them is one
    token, their number and the time they span."""
    min_text_similarity: Annotated[float, Field(ge=0, le=1), Shapes.PLAN] = 0.5
    """``hybrid`` only: share of common distinct tokens (Jaccard) from which texts agree."""
    drop_fraction: Annotated[Fraction, Shapes.PLAN] = 0.5
    """``random_drop`` only: chance of an event to be dropped."""


class Template(Section):
    """How an event is written as tokens."""

    style: Annotated[Literal["paper", "compact", "minimal", "dense"], Shapes.PLAN] = "paper"
    """``paper``: the published layout, token for token; ``compact``: without its blanks and line
    breaks; ``minimal``: only what reading back needs; ``dense``: nor the end of the text."""
    time_bytes: Annotated[Literal[2, 3, 4], Shapes.PLAN] = 4
    """Bytes of the time code; 4 is the paper's float32, 2 resolve an interval to 0.4 %."""
    images: Annotated[Literal["per_event", "on_change", "none"], Shapes.PLAN] = "per_event"
    """When an event's image is shown."""
    image_px: Annotated[int, Field(ge=56, le=560, multiple_of=28), Shapes.STORE] = 56
    """Side of the square every image is resized to by ``prepare``, in pixels; 56 is 4 tokens."""
    max_text_tokens: Annotated[NonNegativeInt, Shapes.PLAN] = 0
    """Maximum length of an event's text, in tokens. Longer texts are truncated in samples and
    counted; the store keeps them whole. 0 truncates none."""


class Window(Section):
    """How sequences are cut into samples."""

    max_tokens: Annotated[int, Field(ge=64), Shapes.PLAN] = 4096
    """Tokens in one packed sample, images included."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9), Shapes.PLAN] = 0.0
    """Share of a training window that repeats the one before as unscored context."""
    long_events: Annotated[Literal["cut", "stop"], Shapes.NOTHING] = "cut"
    """Treatment of an event that does not fit ``max_tokens``. ``cut``: its text is cut, to at most
    half of ``max_tokens``; a question in words that does not fit is left out; both are counted and
    named. ``stop``: the job stops and names the first such event."""
    time_from: Annotated[float, Shapes.PLAN] = Field(default=-1e300)
    """Only events at or after this time, in the source's time unit."""
    time_to: Annotated[float, Shapes.PLAN] = Field(default=1e300)
    """Only events before this time, in the source's time unit."""
