"""Plan: event store + Delta + template + budget -> which events make which sample.

The sequences of each file are cut into windows, by Ray Data where there are many files; the driver
packs them into samples. The plan is a small table with the similar marks of every window. For it no
image is decoded and no text tokenised, and only the ``hybrid`` strategy reads token ids, so another
Delta costs next to nothing.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from mmtpp.core.branches import EVENT_TASKS, branch_costs, question_cost
from mmtpp.core.compression import Compression, compress
from mmtpp.core.errors import DataError, MmtppError, as_record, from_record
from mmtpp.core.events import Events
from mmtpp.core.order import seed_from
from mmtpp.core.packing import pack
from mmtpp.core.template import Template, TemplateSettings
from mmtpp.core.tokens import TokenIds
from mmtpp.core.window import TimeRange, Window, cut_windows, last_window, origins
from mmtpp.data.shard import AskedQuestion
from mmtpp.data.store import StoredSequence, StoreReader, StoreSettings
from mmtpp.storage.parquet import read_table, write_table

FILES_PER_TASK = 4
FILES_HERE = 64  # some 6 million events: done before the processes for it would have started

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
    ]
)
_PLAN_SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        *WINDOW_SCHEMA,
        ("num_events", pa.int32()),
        ("num_similar", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked about every event (``core.branches``).

    Attributes:
        tasks: names of ``core.branches.TASKS``.
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

    @property
    def fingerprint(self) -> str:
        """Hash of the settings; equal for equal samples wherever the store lies."""
        tree = asdict(self)
        if self.asking is None:
            del tree["asking"]
        tree |= {"store": self.store.fingerprint, "image_px": self.image_px}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @property
    def image_px(self) -> int:
        """Side of the store's images."""
        return self.store.image_px

    def writer(self, token_ids: TokenIds) -> Template:
        """What writes the events."""
        return Template(token_ids, self.template, asked=self.asking is not None)

    @property
    def time_range(self) -> TimeRange:
        """Events considered."""
        return TimeRange(self.time_from, self.time_to)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which events make which sample.

    Attributes:
        windows: one row a window, ``WINDOW_SCHEMA``.
        samples: window indices of each sample.
        num_events: scored or not, all events in the windows, repeated context included.
        num_similar: of those, written as one token.
        fingerprint: of settings and store.
    """

    windows: pa.Table
    samples: list[list[int]]
    num_events: int
    num_similar: int
    fingerprint: str

    def describe(self, max_tokens: int) -> str:
        """One line on how well the samples are filled."""
        tokens = int(np.sum(self.windows["num_tokens"].to_numpy()))
        fill = tokens / (len(self.samples) * max_tokens)
        return (
            f"{len(self.samples):,} samples of {max_tokens} tokens from {len(self.windows):,} "
            f"windows, {fill:.1%} full; {self.num_events:,} events, "
            f"{self.num_similar:,} of them compressed"
        )

    def figures(self) -> dict[str, float]:
        """What compression and windows make of the events, as metrics of a run."""
        tokens = float(np.sum(self.windows["num_tokens"].to_numpy()))
        return {
            "data/events": float(self.num_events),
            "data/samples": float(len(self.samples)),
            "data/compressed_fraction": self.num_similar / self.num_events,
            "data/tokens_per_event": tokens / self.num_events,
            "data/events_per_context": self.num_events / len(self.samples),
        }

    def save(self, uri: str) -> None:
        """Write the plan as one Parquet file."""
        sample_of = np.empty(len(self.windows), dtype=np.int64)
        order = np.empty(len(self.windows), dtype=np.int64)
        for index, windows in enumerate(self.samples):
            sample_of[windows] = index
            order[windows] = np.arange(len(windows))
        table = self.windows.append_column("sample", pa.array(sample_of))
        table = table.append_column("place", pa.array(order))
        table = table.replace_schema_metadata(
            {
                "fingerprint": self.fingerprint,
                "num_events": str(self.num_events),
                "num_similar": str(self.num_similar),
            }
        )
        write_table(uri, table)


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
    )


def make_plan(settings: AssembleSettings, token_ids: TokenIds) -> Plan:
    """Cut every sequence of a split into windows and pack them into samples.

    Raises:
        DataError: no event of this split and time range, or an event larger than the budget.
    """
    files = StoreReader(settings.store).files()
    tables = (
        [plan_files(pa.table({"file": files}), settings=settings, token_ids=token_ids)]
        if len(files) <= FILES_HERE
        else _plan_on_cluster(files, settings, token_ids)
    )
    table = pa.concat_tables(tables).sort_by([("sequence_id", "ascending"), ("start", "ascending")])
    for problem in filter(None, table["problem"].to_pylist()):
        raise from_record(problem)
    if settings.max_sequences:
        chosen = sorted(set(table["sequence_id"].to_pylist()))[: settings.max_sequences]
        table = table.filter(pc.field("sequence_id").isin(chosen))
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
    )


def _check_questions(windows: pa.Table, settings: AssembleSettings) -> None:
    """Raise a DataError where the task ``qa`` has nothing to ask."""
    if not np.any(windows["end_question"].to_numpy()):
        raise DataError(
            f"no sequence of the {settings.split} split has a question",
            where=settings.store.data_uri,
            cause="only source.kind = danmaku_qa has questions and answers",
            setting="tasks.qa",
        )


def _plan_on_cluster(
    files: list[str], settings: AssembleSettings, token_ids: TokenIds
) -> list[pa.Table]:
    windows_of_files = ray.data.from_items(
        [{"file": file} for file in files], override_num_blocks=-(-len(files) // FILES_PER_TASK)
    ).map_batches(
        plan_files,  # pyright: ignore[reportArgumentType] # Arrow tables are batches
        fn_kwargs={"settings": settings, "token_ids": token_ids},
        batch_size=None,
        batch_format="pyarrow",
        label_selector=dict(settings.store.machine_labels) or None,
    )
    return list(windows_of_files.iter_batches(batch_size=None, batch_format="pyarrow"))


def plan_files(files: pa.Table, *, settings: AssembleSettings, token_ids: TokenIds) -> pa.Table:
    """Cut the sequences of files of the store into windows, in a Ray Data task or here.

    Returns:
        ``WINDOW_SCHEMA`` and what the plan as a whole needs: problem, sequence_id, num_events,
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
        problem = {"problem": as_record(error), "sequence_id": "", "start": 0}
        return pa.Table.from_pylist([problem], _PLAN_SCHEMA)
    return pa.table(columns, schema=_PLAN_SCHEMA)


def _windows(
    sequence: StoredSequence, settings: AssembleSettings, template: Template
) -> dict[str, list]:
    """Windows as columns of ``_PLAN_SCHEMA``.

    Raises:
        DataError: an event alone is larger than the context.
    """
    first, last = settings.time_range.of(sequence.times)
    start, end = sequence.span(settings.split)
    # what comes after the part stays unknown, what came before it is its past
    last, own = max(first, min(last, end)), max(0, start - first)
    chosen = settings.compression.of_sequence(sequence.sequence_id)
    events = compress(sequence.events.slice(first, last), chosen)
    try:
        windows = _cut(events, sequence.times[first:last], own, settings, template)
        asked = _cut_questions(events, sequence.questions, settings, template)
    except ValueError as error:
        raise DataError(
            f"sequence {sequence.sequence_id!r}: {error}",
            where=settings.store.data_uri,
            cause="a single event does not fit the context",
            setting=f"window.max_tokens = {settings.max_tokens}",
        ) from error
    spans = [(0, 0)] * len(windows) + [span for _, span in asked]
    windows += [window for window, _ in asked]
    marks = [events.similar[window.start : window.end] for window in windows]
    count = len(windows)
    return {
        "problem": [""] * count,
        "sequence_id": [sequence.sequence_id] * count,
        "file": [sequence.address.file] * count,
        "group": [sequence.address.group] * count,
        "row": [sequence.address.row] * count,
        "start": [first + window.start for window in windows],
        "end": [first + window.end for window in windows],
        "first_scored": [first + window.first_scored for window in windows],
        "num_tokens": [window.num_tokens for window in windows],
        "similar": [np.packbits(each).tobytes() for each in marks],
        "first_question": [first for first, _ in spans],
        "end_question": [end for _, end in spans],
        "num_events": [len(each) for each in marks],
        "num_similar": [int(each.sum()) for each in marks],
    }


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
    ends = [len(events)]
    if asking.origins:
        # the first event has no interval: futures follow the second at the earliest
        ends = origins(times, asking.origins, horizon=asking.horizon, first=max(2, own))
    return [
        last_window(
            events.slice(0, end),
            template,
            max_tokens=settings.max_tokens,
            question_tokens=int(costs[end]) if end < len(events) else int(costs[-1]),
        )
        for end in ends
    ]


def _cut_questions(
    events: Events,
    questions: tuple[AskedQuestion, ...],
    settings: AssembleSettings,
    template: Template,
) -> list[tuple[Window, tuple[int, int]]]:
    """Windows at the end of a sequence and the questions in words asked after each.

    Questions share a window while they take no more than half of the context.
    """
    found: list[tuple[Window, tuple[int, int]]] = []
    costs = [question_cost(template, each.question_ids, each.answer_ids) for each in questions]
    first = 0
    while first < len(costs) and len(events):
        end = first + 1
        while end < len(costs) and sum(costs[first : end + 1]) <= settings.max_tokens // 2:
            end += 1
        window = last_window(
            events,
            template,
            max_tokens=settings.max_tokens,
            question_tokens=sum(costs[first:end]),
        )
        found.append((window, (first, end)))
        first = end
    return found


def samples_table(plan: Plan, sample_ids: np.ndarray) -> pa.Table:
    """The input of ``Assembler`` for these samples, in this order."""
    windows = [plan.samples[sample] for sample in sample_ids.tolist()]
    flat = np.array([window for part in windows for window in part], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, windows)])
    taken = plan.windows.take(pa.array(flat)).combine_chunks()
    struct = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in taken.columns], names=taken.column_names
    )
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)
    return pa.table({"sample_id": pa.array(sample_ids, pa.int64()), "windows": listed})
