"""Plan: event store + Delta + template + budget -> which events make which sample.

The sequences of each file are cut into windows, by Ray Data where there are many files; the driver
packs them into samples. The plan is a small table with the similar marks of every window. For it no
image is decoded and no text tokenised, and only the ``hybrid`` strategy reads token ids, so another
Delta costs next to nothing.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmtpp.core.branches import branch_costs
from mmtpp.core.compression import Compression, compress
from mmtpp.core.errors import DataError, MmtppError, error_from_json, error_to_json
from mmtpp.core.events import Events
from mmtpp.core.packing import pack
from mmtpp.core.seeds import seed_from
from mmtpp.core.tasks import EVENT_TASKS
from mmtpp.core.template import Template, TemplateSettings
from mmtpp.core.text_truncation import cut_with_truncation, truncate_texts
from mmtpp.core.tokens import TokenIds
from mmtpp.core.window import (
    EventTooLongError,
    TimeRange,
    Window,
    check_events,
    cut_windows,
    future_origins,
    last_window,
)
from mmtpp.data.samples.long_texts import FittedWindow, LongTexts, find_long_texts, fit_questions
from mmtpp.data.samples.over_files import over_files
from mmtpp.data.samples.planned import Plan
from mmtpp.data.store.store_reader import StoredSequence, StoreReader, StoreSettings
from mmtpp.storage.parquet import read_table

logger = logging.getLogger(__name__)


WINDOW_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        # where the sequence begins
        ("file", pa.string()),
        ("group", pa.int32()),
        ("row", pa.int32()),
        # events of the sequence, from 0
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("first_scored", pa.int32()),
        ("num_tokens", pa.int32()),
        ("similar", pa.binary()),  # a bit an event, numpy.packbits
        # questions in words about the sequence that are asked after this window, from 0; where
        # there are any, nothing else is asked
        ("first_question", pa.int32()),
        ("end_question", pa.int32()),
        ("longest_text", pa.int32()),  # tokens; longer texts are cut to fit. Null: none is cut
    ]
)
_PLAN_SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("long_texts", pa.string()),  # of a sequence, in a row that is no window: LongTexts.as_json
        *WINDOW_SCHEMA,
        ("num_events", pa.int32()),
        ("num_similar", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked about every event (``core.branches``).

    Attributes:
        tasks: names of ``core.tasks.TASKS``.
        expansions: first bytes of time codes that follow a time question, for forecasts.
        history_is_scored: the events of the history are labels too, as in stage 1.
        ahead: only the event that comes after the last of each sequence is asked about.
        origins: with ``ahead``, it is asked after so many events of each sequence instead, evenly
            spaced among those that have ``horizon`` of the sequence after them; 0 for the last.
        horizon: in the source's time unit.
    """

    tasks: tuple[str, ...]
    expansions: tuple[int, ...] = ()
    history_is_scored: bool = False
    ahead: bool = False
    origins: int = 0
    horizon: float = 0.0

    @property
    def event_tasks(self) -> tuple[str, ...]:
        """Those that are asked about an event."""
        return tuple(task for task in self.tasks if task in EVENT_TASKS)

    @property
    def in_words(self) -> bool:
        """Whether the questions that come with a sequence are asked."""
        return "qa" in self.tasks


@dataclass(frozen=True, slots=True)
class AssembleSettings:
    """Everything the samples depend on, besides the store.

    Attributes:
        store: where it is, and its fingerprint.
        compression: which events are similar.
        template: how events are written.
        max_tokens: of a sample.
        overlap_fraction: of consecutive windows.
        time_from, time_to: events considered, in the source's unit.
        split: train, validation, test or all.
        max_sequences: only the first by id; 0 for all.
        targets_delta: events that temporal compression with this threshold drops are no targets.
        packed: several windows in a sample, or one.
        seed: of the packing.
        asking: what is asked about the events of a window; None for their sequence alone.
        max_text_tokens: longer texts are truncated to so many tokens; 0 truncates none.
        long_events: ``cut`` or ``stop``, ``window.long_events``.
    """

    store: StoreSettings
    compression: Compression
    template: TemplateSettings
    max_tokens: int
    overlap_fraction: float
    time_from: float
    time_to: float
    split: str
    max_sequences: int
    targets_delta: float
    packed: bool
    seed: int
    asking: Asking | None = None
    max_text_tokens: int = 0
    long_events: str = "cut"

    @property
    def fingerprint(self) -> str:
        """Hash of the settings; equal for equal samples wherever the store lies."""
        tree = asdict(self)
        del tree["long_events"]
        if self.asking is None:
            del tree["asking"]
        if not self.max_text_tokens:
            del tree["max_text_tokens"]
        tree |= {"store": self.store.fingerprint, "image_px": self.image_px}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @property
    def image_px(self) -> int:
        """Side of the store's images."""
        return self.store.image_px

    def writer(self, token_ids: TokenIds) -> Template:
        """What writes the events."""
        return Template(token_ids, self.template, has_questions=self.asking is not None)

    @property
    def time_range(self) -> TimeRange:
        """Events considered."""
        return TimeRange(self.time_from, self.time_to)


def load_plan(uri: str) -> Plan:
    """Read a plan back.

    Raises:
        StorageError: it is not there.
    """
    table = read_table(uri)
    metadata = table.schema.metadata or {}
    sample_of, place = table["sample"].to_numpy(), table["place"].to_numpy()
    samples: list[list[int]] = [[] for _ in range(int(sample_of.max(initial=-1)) + 1)]
    for window in np.lexsort((place, sample_of)).tolist():
        samples[sample_of[window]].append(window)
    return Plan(
        table.drop_columns(["sample", "place"]).combine_chunks(),
        samples,
        int(metadata[b"num_events"]),
        int(metadata[b"num_similar"]),
        metadata[b"fingerprint"].decode(),
        # plans of earlier versions have none
        LongTexts.of_json(metadata.get(b"long_texts", b'{"examples": []}')),
    )


def make_plan(settings: AssembleSettings, token_ids: TokenIds) -> Plan:
    """Cut every sequence of a split into windows and pack them into samples.

    Raises:
        DataError: no event of this split and time range, or one that does not fit and is not cut.
    """
    tables = over_files(
        plan_files,
        StoreReader(settings.store).files(),
        {"settings": settings, "token_ids": token_ids},
        machine_labels=settings.store.machine_labels,
    )
    table = pa.concat_tables(tables).sort_by([("sequence_id", "ascending"), ("start", "ascending")])
    for problem in filter(None, table["problem"].to_pylist()):
        raise error_from_json(problem)
    if settings.max_sequences:
        chosen = sorted(set(table["sequence_id"].to_pylist()))[: settings.max_sequences]
        table = table.filter(pc.field("sequence_id").isin(chosen))
    table, long_texts = _without_notes(table, settings)
    if len(table) == 0:
        raise DataError(
            f"no events to score in the {settings.split} split",
            where=settings.store.data_uri,
            cause="no sequence is in the split (few sequences: split.by = time cuts each in time; "
            "or small split.*_fraction), or none has two events, or window.time_from and "
            "window.time_to leave nothing",
            setting=f"window.time_from = {settings.time_from}, window.time_to = {settings.time_to}",
        )
    if settings.asking is not None and settings.asking.in_words:
        _check_questions(table, settings)
    fingerprint = settings.fingerprint
    if settings.packed:
        samples = pack(
            table["num_tokens"].to_pylist(),
            max_tokens=settings.max_tokens,
            seed=seed_from("pack", fingerprint) % 2**63,
        )
    else:
        samples = [[window] for window in range(len(table))]
    return Plan(
        windows=table.select(WINDOW_SCHEMA.names).combine_chunks(),
        samples=samples,
        num_events=int(np.sum(table["num_events"].to_numpy())),
        num_similar=int(np.sum(table["num_similar"].to_numpy())),
        fingerprint=fingerprint,
        long_texts=long_texts,
    )


def _without_notes(table: pa.Table, settings: AssembleSettings) -> tuple[pa.Table, LongTexts]:
    """The rows that are windows, and the sum of what the other rows report; warned of.

    Raises:
        DataError: no question in words fits the context.
    """
    notes = table["long_texts"].drop_null().to_pylist()
    long_texts = LongTexts.sum(map(LongTexts.of_json, notes))
    table = table.filter(pc.field("end").is_valid())
    described = long_texts.describe(
        max_tokens=settings.max_tokens, max_text_tokens=settings.max_text_tokens
    )
    if long_texts:
        logger.warning("%s split: %s", settings.split, described)
    if len(table) == 0 and long_texts.left_out:
        raise DataError(
            f"no question to ask in the {settings.split} split",
            where=settings.store.data_uri,
            cause=described,
            setting=f"window.max_tokens = {settings.max_tokens}",
        )
    return table, long_texts


def _check_questions(windows: pa.Table, settings: AssembleSettings) -> None:
    """Raise a DataError where the task ``qa`` has nothing to ask."""
    if not np.any(windows["end_question"].to_numpy()):
        raise DataError(
            f"no sequence of the {settings.split} split has a question",
            where=settings.store.data_uri,
            cause="only source.kind = danmaku_qa has questions and answers",
            setting="tasks.qa",
        )


def plan_files(files: pa.Table, *, settings: AssembleSettings, token_ids: TokenIds) -> pa.Table:
    """Cut the sequences of files of the store into windows, in a Ray Data task or here.

    Returns:
        ``WINDOW_SCHEMA`` and what the plan as a whole needs: problem, long_texts, num_events,
        num_similar.
    """
    template = settings.writer(token_ids)
    reader = StoreReader(settings.store)
    with_text = settings.compression.strategy == "hybrid"
    in_words = settings.asking is not None and settings.asking.in_words
    columns: dict[str, list] = {name: [] for name in _PLAN_SCHEMA.names}
    try:
        names = files["file"].to_pylist()
        for sequence in reader.sequences(names, with_text=with_text, with_questions=in_words):
            if len(range(*sequence.span(settings.split))):
                for name, values in _windows(sequence, settings, template).items():
                    columns[name] += values
    except MmtppError as error:  # Ray Data would wrap it beyond recognition
        problem = {"problem": error_to_json(error), "sequence_id": "", "start": 0}
        return pa.Table.from_pylist([problem], _PLAN_SCHEMA)
    return pa.table(columns, schema=_PLAN_SCHEMA)


def _windows(
    sequence: StoredSequence, settings: AssembleSettings, template: Template
) -> dict[str, list]:
    """Windows as columns of ``_PLAN_SCHEMA``.

    Raises:
        DataError: an event is larger than the context, and may not be cut or has no text.
    """
    first, last = settings.time_range.event_range(sequence.times)
    start, end = sequence.span(settings.split)
    # what comes after the part stays unknown, what came before it is its past
    last, own = max(first, min(last, end)), max(0, start - first)
    chosen = settings.compression.for_sequence(sequence.sequence_id)
    events = compress(sequence.events.slice(first, last), chosen)
    try:
        fitted, long_texts = _fit(events, sequence, (first, last), own, settings, template)
    except EventTooLongError as error:
        raise DataError(
            f"sequence {sequence.sequence_id!r}: event {first + error.event} takes {error.tokens} "
            f"tokens, more than {error.budget}",
            where=f"{settings.store.data_uri}, {sequence.address.file}",
            cause="a single event does not fit the context"
            + ("" if settings.long_events == "stop" else ", even without its text"),
            setting=f"window.max_tokens = {settings.max_tokens}, "
            f"template.max_text_tokens = {settings.max_text_tokens}, "
            f"window.long_events = {settings.long_events}",
        ) from error
    windows = [each.window for each in fitted]
    marks = [events.similar[window.start : window.end] for window in windows]
    count = len(windows)
    columns = {
        "problem": [""] * count,
        "long_texts": [None] * count,
        "sequence_id": [sequence.sequence_id] * count,
        "file": [sequence.address.file] * count,
        "group": [sequence.address.group] * count,
        "row": [sequence.address.row] * count,
        "start": [first + window.start for window in windows],
        "end": [first + window.end for window in windows],
        "first_scored": [first + window.first_scored for window in windows],
        "num_tokens": [window.num_tokens for window in windows],
        "similar": [np.packbits(each).tobytes() for each in marks],
        "first_question": [each.questions[0] for each in fitted],
        "end_question": [each.questions[1] for each in fitted],
        "longest_text": [each.longest_text for each in fitted],
        "num_events": [len(each) for each in marks],
        "num_similar": [int(each.sum()) for each in marks],
    }
    if long_texts:
        note = {"long_texts": long_texts.as_json(), "sequence_id": sequence.sequence_id, "start": 0}
        columns = {name: [*values, note.get(name)] for name, values in columns.items()}
    return columns


def _fit(
    events: Events,
    sequence: StoredSequence,
    span: tuple[int, int],
    own: int,
    settings: AssembleSettings,
    template: Template,
) -> tuple[list[FittedWindow], LongTexts]:
    """Windows of events ``span`` of a sequence, with texts as long as fit.

    Events of the span from ``own`` on belong to the part.

    Raises:
        EventTooLongError: an event does not fit, and may not be cut or has no text.
    """
    first, last = span
    whole, max_tokens = events, settings.max_tokens
    events = truncate_texts(events, settings.max_text_tokens or None)
    times = sequence.times[first:last]

    def cut(events: Events) -> list[Window]:
        return _cut(events, times, own, settings, template)

    if settings.long_events == "stop":
        found, longest = cut(events), None
    else:
        found, longest = cut_with_truncation(events, cut, max_tokens=max_tokens)
    windows = [FittedWindow(each, longest) for each in found]
    asked, left_out = fit_questions(events, sequence.questions, template, max_tokens=max_tokens)
    if settings.long_events == "stop" and (
        left_out or any(each.longest_text is not None for each in asked)
    ):
        raise DataError(
            f"sequence {sequence.sequence_id!r}: a question in words does not fit the context with "
            "its answer and the last event",
            where=f"{settings.store.data_uri}, {sequence.address.file}",
            setting=f"window.max_tokens = {max_tokens}, window.long_events = stop",
        )
    windows += asked
    long_texts = find_long_texts(
        whole,
        windows,
        sequence_id=sequence.sequence_id,
        first=first,
        max_text_tokens=settings.max_text_tokens,
    )
    names = [f"sequence {sequence.sequence_id!r}, question {place}" for place in left_out]
    of_questions = LongTexts(left_out=len(left_out), examples=tuple(names))
    return windows, LongTexts.sum([long_texts, of_questions])


def _cut(
    events: Events, times: NDArray, own: int, settings: AssembleSettings, template: Template
) -> list[Window]:
    """The windows of events of which those from ``own`` on belong to the part."""
    asking = settings.asking
    costs = None
    if asking is not None:
        if not asking.event_tasks:
            return []
        # forecasts see as much history as training does: expansions come on top
        costs = branch_costs(template, events, tasks=asking.event_tasks)
    if asking is None or costs is None or not asking.ahead:
        return cut_windows(
            events,
            template,
            max_tokens=settings.max_tokens,
            overlap_fraction=settings.overlap_fraction,
            branch_costs=costs,
            first_target=own,
        )
    if len(events) == 0:
        return []
    check_events(events, template, max_tokens=settings.max_tokens)
    ends = [len(events)]
    if asking.origins:
        # the first event has no interval: futures follow the second at the earliest
        ends = future_origins(times, asking.origins, horizon=asking.horizon, first=max(2, own))
    return [
        last_window(
            events.slice(0, end),
            template,
            max_tokens=settings.max_tokens,
            question_tokens=int(costs[end]) if end < len(events) else int(costs[-1]),
        )
        for end in ends
    ]
