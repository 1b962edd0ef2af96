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
from mmtpp.core.events import MAX_TYPES


class Columns(Section):
    """Columns of a table, ``source.kind = columns``; empty for one there is not."""

    time: str = ""
    """Times: numbers in the source's unit, or dates (UTC unless they say otherwise). A list makes
    its row a whole sequence."""
    sequence: str = ""
    """What the rows of one sequence share; empty: a file is one sequence."""
    type: str = ""
    """Type codes or names; empty: all events are of one type."""
    text: str = ""
    """Texts."""
    image: str = ""
    """Image paths relative to ``source.uri``."""
    interval: str = ""
    """Declared waiting times; only compared with the recomputed ones."""
    split: str = ""
    """Parts by name, such as train, dev or test, for ``split.by = given``; empty: the names of
    files and folders say them."""


class Taxi(Section):
    """What ``source.kind = taxi`` is built from."""

    trips: Uri = ""
    """Trip records of New York's TLC with zone ids, a CSV or Parquet file."""
    zones: Uri = ""
    """The TLC taxi zone shapefile, ending in .shp, its .dbf beside it."""
    sequence: Literal["day", "zone"] = "day"
    """What one sequence is."""


class Source(Section):
    """Where raw events come from."""

    kind: Literal["flights", "taxi", "danmaku", "danmaku_qa", "mmtpp", "easytpp", "columns"] = (
        "mmtpp"
    )
    """``mmtpp``: the published JSON, one file a sequence; ``danmaku``: Bilibili XML, one file a
    video; ``danmaku_qa``: its questions, JSON lines; ``easytpp``: pickles, JSON or rows of EasyTPP;
    ``columns``: CSV, JSON lines or Parquet by ``source.columns``; ``flights``, ``taxi``: built,
    written to ``source.uri`` as ``mmtpp`` and read back."""
    uri: Uri = ""
    """Folder with the raw files, or one file of them; a local path or s3://. Paths of images are
    relative to the folder."""
    flights_sequence: Literal["aircraft", "airport_day"] = "aircraft"
    """What one sequence of the demo source is."""
    seconds_per_unit: PositiveFloat = 1.0
    """Seconds in one unit of the source's times; 60 for minutes. For ``mmtpp``, ``easytpp`` and
    ``columns``: the other kinds know theirs."""
    types: Annotated[tuple[str, ...], Field(strict=False, max_length=MAX_TYPES)] = ()
    """Names of the event types in the order of their codes; needed when the files name types by
    strings. For ``mmtpp`` and ``columns``."""
    columns: Columns = Columns()
    """Columns of a table."""
    taxi: Taxi = Taxi()
    """Files the taxi source is built from."""
    max_rejected_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """``prepare`` fails when more than this share of the events is rejected."""
    malformed_file: Literal["fail", "reject"] = "fail"
    """What an unreadable event file does: stop the job, or be counted and kept as rejected."""
    max_image_pixels: PositiveInt = 50_000_000
    """Images with more pixels are rejected before they are decoded."""
    max_image_mib: PositiveInt = 64
    """Larger image files are rejected unread."""
    max_file_mib: PositiveInt = 1024
    """``prepare`` refuses larger event files: a process reads a file whole, and needs some ten
    times its size in memory."""
    max_workers: NonNegativeInt = 0
    """Processes of ``prepare``, a CPU each; 0 for as many as the cluster has or can bring."""

    @model_validator(mode="after")
    def _names_the_times(self) -> "Source":
        if self.kind == "columns" and not self.columns.time:
            raise ValueError("kind = columns needs source.columns.time, the column of times")
        return self


class Store(Section):
    """The event store that ``prepare`` writes and every later job reads."""

    uri: Uri = ""
    """Folder of the store; a local path or s3://."""
    cache_gib: NonNegativeFloat = 20.0
    """Disk that every machine may use to keep what it read of stores on S3; 0 for none."""
    cache_path: str = ""
    """Folder of that cache on every machine. Empty: $MMTPP_CACHE, else mmtpp in $XDG_CACHE_HOME or
    ~/.cache."""
    machine_labels: dict[str, str] = Field(default={})
    """Ray labels of the machines where Ray Data writes and reads the store, as ``{role = "data"}``.
    Empty: any machine."""


class Split(Section):
    """Which events train the model, and which are held out."""

    by: Literal["hash", "given", "time"] = "hash"
    """How the parts are made. ``hash``: whole sequences, by a stable hash of their ids, for
    ``danmaku_qa`` of the events that are asked about; ``given``: whole sequences, as the name of
    their file or folder says (train, dev, valid, test), or ``source.columns.split``; ``time``:
    every sequence is cut in time, training before, test after."""
    validation_fraction: Fraction = 0.05
    """Share used for validation during training: of the sequences, or with ``by = time`` of the
    events of each sequence, those just before its test. ``given`` ignores it."""
    test_fraction: Fraction = 0.1
    """Share used only by ``evaluate``: of the sequences, or with ``by = time`` the last events of
    each sequence. ``given`` ignores it."""
    validation_from: Instant = ""
    """With ``by = time``, the instant from which events are for validation, in all sequences: a
    number in the source's unit, or an ISO date, UTC unless it says otherwise. Empty: the instant
    that leaves ``validation_fraction`` of each sequence's events before its test."""
    test_from: Instant = ""
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

    strategy: Literal["none", "temporal", "anchored", "relative", "hybrid", "random_drop"] = (
        "temporal"
    )
    """Which events are similar. ``temporal``: the paper's rule, the interval differs by less than
    ``delta`` from the one directly before; ``anchored``: from that of the last kept event;
    ``relative``: as ``temporal`` for the logarithms of the intervals; ``hybrid``: as ``temporal``,
    and type, frame and text agree; ``random_drop``: a control, by chance; ``none``: keep all."""
    delta: NonNegativeFloat = 0.2
    """Threshold, the paper's capital delta, in the source's time unit; for ``relative`` a
    difference of natural logarithms."""
    run_encoding: Literal["token", "run_length"] = "token"
    """``token``: each similar event is one token (the paper); ``run_length``: a run of them is one
    token, their number and the time they span."""
    min_text_similarity: Annotated[float, Field(ge=0, le=1)] = 0.5
    """``hybrid`` only: share of common distinct tokens (Jaccard) from which texts agree."""
    drop_fraction: Fraction = 0.5
    """``random_drop`` only: chance of an event to be dropped."""


class Template(Section):
    """How an event is written as tokens."""

    style: Literal["paper", "compact", "minimal", "dense"] = "paper"
    """``paper``: the published layout, token for token; ``compact``: without its blanks and line
    breaks; ``minimal``: only what reading back needs; ``dense``: nor the end of the text."""
    time_bytes: Literal[2, 3, 4] = 4
    """Bytes of the time code; 4 is the paper's float32, 2 resolve an interval to 0.4 %."""
    images: Literal["per_event", "on_change", "none"] = "per_event"
    """When an event's image is shown."""
    image_px: Annotated[int, Field(ge=56, le=560, multiple_of=28)] = 56
    """Side of the square every image is resized to by ``prepare``, in pixels; 56 is 4 tokens."""


class Window(Section):
    """How sequences are cut into samples."""

    max_tokens: Annotated[int, Field(ge=64)] = 4096
    """Tokens in one packed sample, images included."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of a training window that repeats the one before as unscored context."""
    time_from: float = Field(default=-1e300)
    """Only events at or after this time, in the source's time unit."""
    time_to: float = Field(default=1e300)
    """Only events before this time, in the source's time unit."""
