"""Assemble: event store + Delta + template + budget -> windows -> packed samples.

    make_plan (driver; Ray Data over row groups)   which events make which sample: a small table
    Assembler (Ray Data actor)                     samples of the plan -> packed rows, in order

Nothing here decodes an image or tokenises a text, so another Delta costs next to nothing.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from mmtpp.core.compression import Compression
from mmtpp.core.errors import DataError
from mmtpp.core.order import seed_from
from mmtpp.core.packing import pack
from mmtpp.core.row import Row
from mmtpp.core.template import Template, TemplateSettings
from mmtpp.core.tokens import TokenIds
from mmtpp.core.window import cut_windows
from mmtpp.data.store import Address, StoredSequence, StoreReader, TimeRange
from mmtpp.storage.paths import read_bytes, write_bytes

GROUPS_PER_BLOCK = 16  # row groups a planning task reads
GROUPS_PER_WORKER = 256  # a planning process is worth starting for so many

ROW_SCHEMA = pa.schema(
    [
        ("sample_id", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("modality", pa.list_(pa.uint8())),
        ("segment", pa.list_(pa.int32())),
        ("event", pa.list_(pa.int32())),
        ("scored", pa.list_(pa.bool_())),
        ("frames", pa.list_(pa.binary())),
        ("image_frame", pa.list_(pa.int32())),
        # one entry an event of the row, for evaluation
        ("event_sequence", pa.list_(pa.string())),
        ("event_time", pa.list_(pa.float64())),
        ("event_interval", pa.list_(pa.float64())),
        ("event_type", pa.list_(pa.int16())),
        ("event_previous_type", pa.list_(pa.int16())),
        ("event_is_target", pa.list_(pa.bool_())),
    ]
)


@dataclass(frozen=True, slots=True)
class AssembleSettings:
    """Everything the samples depend on, besides the store.

    Attributes:
        data_uri: the store's data folder.
        store_fingerprint: of its content.
        compression: which events are similar.
        template: how events are written.
        image_px: side of the stored images.
        max_tokens: of a sample.
        overlap_fraction: of consecutive windows.
        time_from, time_to: events considered, in the source's unit.
        split: train, validation or test.
        max_sequences: only the first by id; 0 for all.
        targets_delta: events that temporal compression with this threshold drops are no targets.
        packed: several windows in a sample, or one.
        seed: of the packing.
    """

    data_uri: str
    store_fingerprint: str
    compression: Compression
    template: TemplateSettings
    image_px: int
    max_tokens: int
    overlap_fraction: float
    time_from: float
    time_to: float
    split: str
    max_sequences: int
    targets_delta: float
    packed: bool
    seed: int

    @property
    def fingerprint(self) -> str:
        """Hash of the settings; equal for equal samples wherever the store lies."""
        tree = asdict(self)
        del tree["data_uri"]
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    def reader(self) -> StoreReader:
        """A reader of the store with this compression and time range."""
        return StoreReader(
            self.data_uri,
            compression=self.compression,
            time_range=TimeRange(self.time_from, self.time_to),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Which events make which sample.

    Attributes:
        windows: one row a window: file, group, row, start, end, first_scored, num_tokens.
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
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_bytes(uri, sink.getvalue().to_pybytes())


def load_plan(uri: str) -> Plan:
    """Read a plan back.

    Raises:
        StorageError: it is not there.
    """
    table = pq.read_table(pa.BufferReader(read_bytes(uri)))
    metadata = table.schema.metadata or {}
    sample_of, place = table["sample"].to_numpy(), table["place"].to_numpy()
    samples: list[list[int]] = [[] for _ in range(int(sample_of.max(initial=-1)) + 1)]
    for window in np.lexsort((place, sample_of)).tolist():
        samples[sample_of[window]].append(window)
    return Plan(
        table.drop_columns(["sample", "place"]),
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
    reader = settings.reader()
    groups = [
        {"file": file, "group": group}
        for file in reader.files()
        for group in range(reader.num_groups(file))
    ]
    windows_of_groups = ray.data.from_items(
        groups, override_num_blocks=-(-len(groups) // GROUPS_PER_BLOCK)
    ).map_batches(
        PlanGroups,
        fn_constructor_args=(settings, token_ids),
        batch_size=GROUPS_PER_BLOCK,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=max(1, len(groups) // GROUPS_PER_WORKER)
        ),
    )
    tables = list(windows_of_groups.iter_batches(batch_format="pyarrow"))
    table = pa.concat_tables(tables).sort_by([("sequence_id", "ascending"), ("start", "ascending")])
    problems = [problem for problem in table["problem"].to_pylist() if problem]
    if problems:
        raise DataError(
            problems[0],
            where=settings.data_uri,
            cause="a single event does not fit the context",
            setting=f"window.max_tokens = {settings.max_tokens}",
        )
    if settings.max_sequences:
        chosen = sorted(set(table["sequence_id"].to_pylist()))[: settings.max_sequences]
        table = table.filter(pc.field("sequence_id").isin(chosen))
    if len(table) == 0:
        raise DataError(
            f"no events to score in the {settings.split} split",
            where=settings.data_uri,
            cause="the split is empty, or window.time_from and window.time_to leave nothing",
            setting=f"window.time_from = {settings.time_from}, window.time_to = {settings.time_to}",
        )
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
        windows=table.select(
            ["file", "group", "row", "start", "end", "first_scored", "num_tokens"]
        ),
        samples=samples,
        num_events=int(np.sum(table["num_events"].to_numpy())),
        num_similar=int(np.sum(table["num_similar"].to_numpy())),
        fingerprint=fingerprint,
    )


class PlanGroups:
    """Cuts the sequences of row groups into windows; a Ray Data actor."""

    def __init__(self, settings: AssembleSettings, token_ids: TokenIds) -> None:
        self._settings = settings
        self._reader = settings.reader()
        self._template = Template(token_ids, settings.template)

    def __call__(self, groups: pa.Table) -> pa.Table:
        """Rows: sequence_id, file, group, row, start, end, first_scored, num_tokens, counts."""
        rows = []
        for item in groups.to_pylist():
            stored = self._reader.group(item["file"], item["group"])
            for row, sequence in enumerate(stored):
                if sequence.split == self._settings.split:
                    rows += self._windows(sequence, Address(item["file"], item["group"], row))
        return pa.Table.from_pylist(rows, _PLAN_SCHEMA)

    def _windows(self, sequence: StoredSequence, address: Address) -> list[dict]:
        try:
            windows = cut_windows(
                sequence.events,
                self._template,
                max_tokens=self._settings.max_tokens,
                overlap_fraction=self._settings.overlap_fraction,
            )
        except ValueError as error:
            problem = f"sequence {sequence.sequence_id!r}: {error}"
            return [{"problem": problem, "sequence_id": sequence.sequence_id, "start": 0}]
        return [
            {
                "problem": "",
                "sequence_id": sequence.sequence_id,
                **asdict(address),
                **asdict(window),
                "num_events": window.end - window.start,
                "num_similar": int(sequence.events.similar[window.start : window.end].sum()),
            }
            for window in windows
        ]


_PLAN_SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("sequence_id", pa.string()),
        ("file", pa.string()),
        ("group", pa.int32()),
        ("row", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("first_scored", pa.int32()),
        ("num_tokens", pa.int32()),
        ("num_events", pa.int32()),
        ("num_similar", pa.int32()),
    ]
)


class Assembler:
    """Turns samples of a plan into packed rows.

    Args:
        settings: what the plan was made with.
        token_ids: of the vocabulary.
    """

    def __init__(self, settings: AssembleSettings, token_ids: TokenIds) -> None:
        self._settings = settings
        self._reader = settings.reader()
        self._template = Template(token_ids, settings.template)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """Assemble samples in order.

        Args:
            samples: columns ``sample_id`` and ``windows``, a list of plan rows.

        Returns:
            One row a sample, ``ROW_SCHEMA``.
        """
        rows = [self._row(sample["sample_id"], sample["windows"]) for sample in samples.to_pylist()]
        return pa.Table.from_pylist(rows, ROW_SCHEMA)

    def _row(self, sample_id: int, windows: list[dict]) -> dict:
        parts: dict[str, list] = {name: [] for name in ROW_SCHEMA.names}
        frames: dict[bytes, int] = {}
        num_events = 0
        for segment, window in enumerate(windows):
            sequence = self._reader.sequence(
                Address(window["file"], window["group"], window["row"])
            )
            start, end, first = window["start"], window["end"], window["first_scored"]
            tokens = self._template.write(sequence.events.slice(start, end))
            parts["input_ids"].append(tokens.ids)
            parts["modality"].append(tokens.modality)
            parts["segment"].append(np.full(len(tokens.ids), segment, dtype=np.int32))
            in_row = np.where(tokens.event < 0, -1, tokens.event + num_events)
            parts["event"].append(in_row.astype(np.int32))
            parts["scored"].append(tokens.event >= first - start)
            assert sequence.frames is not None
            shown = sequence.frames.take(pa.array(tokens.frames)).to_pylist()
            parts["image_frame"].append(
                np.array([frames.setdefault(data, len(frames)) for data in shown], dtype=np.int32)
            )
            for name, values in self._event_columns(sequence, start, end, first).items():
                parts[name].append(values)
            num_events += end - start
        joined = {
            name: np.concatenate(values)
            for name, values in parts.items()
            if name not in ("sample_id", "frames", "event_sequence")
        }
        return {
            "sample_id": sample_id,
            "frames": list(frames),
            "event_sequence": [name for names in parts["event_sequence"] for name in names],
            **joined,
        }

    def _event_columns(
        self, sequence: StoredSequence, start: int, end: int, first: int
    ) -> dict[str, object]:
        types = sequence.events.types
        is_target = ~sequence.events.similar & (np.arange(len(types)) >= first)
        gaps = np.abs(np.diff(sequence.intervals, prepend=np.inf))
        is_target &= ~(gaps < self._settings.targets_delta)
        return {
            "event_sequence": [sequence.sequence_id] * (end - start),
            "event_time": sequence.times[start:end],
            "event_interval": sequence.intervals[start:end],
            "event_type": types[start:end],
            "event_previous_type": np.concatenate([types[:1], types[:-1]])[start:end],
            "event_is_target": is_target[start:end],
        }


def assemble_samples(
    samples: pa.Table, settings: AssembleSettings, token_ids: TokenIds
) -> pa.Table:
    """``Assembler`` as a Ray Data task; the process keeps it, with what it read, between tasks."""
    return _assembler(settings, token_ids)(samples)


@lru_cache(maxsize=2)
def _assembler(settings: AssembleSettings, token_ids: TokenIds) -> Assembler:
    return Assembler(settings, token_ids)


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


def row_from_arrow(batch: pa.Table | pa.RecordBatch, index: int, *, image_px: int) -> Row:
    """One packed row in numpy."""

    def values(name: str) -> np.ndarray:
        return batch[name][index].values.to_numpy(zero_copy_only=False)

    frames = batch["frames"][index].as_py()
    pixels = np.frombuffer(b"".join(frames), dtype=np.uint8)
    return Row(
        sample_id=batch["sample_id"][index].as_py(),
        input_ids=values("input_ids"),
        modality=values("modality"),
        segment=values("segment"),
        event=values("event"),
        scored=values("scored"),
        frames=pixels.reshape(len(frames), image_px, image_px, 3),
        image_frame=values("image_frame"),
        event_type=values("event_type"),
        event_is_target=values("event_is_target"),
    )
