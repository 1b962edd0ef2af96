"""Stores that are cut in time: training sees nothing that comes after the cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mmtpp
from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ConfigError, MissingFileError
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.supervision import (
    AllTokens,
    EveryEvent,
    FollowingEvent,
    FutureOrigins,
    Supervision,
)
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.totals import Totals
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.evaluate.histories import read_histories
from mmtpp.evaluate.likelihoods import count_training_events
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.paths import join
from tests.helpers.steps import SETTINGS, encode_shard
from tests.helpers.tables import write_rows

TOKENIZER = train_tokenizer(["some words of text"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)


@pytest.mark.parametrize(
    ("split", "source", "message"),
    [
        ({"by": "hash"}, {"columns": {"time": "t", "split": "fold"}}, "set split.by = given"),
        ({"by": "time"}, {"kind": "danmaku_qa"}, "questions are about whole sequences"),
        (
            {"by": "time", "validation_from": 5, "test_from": "4"},
            {"columns": {"time": "t"}},
            "validation_from = 5 is after test_from = 4",
        ),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, split: dict, source: dict, message: str):
    tree = {
        "source": {"kind": "columns", "uri": str(tmp_path / "raw"), **source},
        "store": {"uri": str(tmp_path / "store")},
        "split": split,
    }
    with pytest.raises(ConfigError, match=message):
        prepare(config_from_tree(tree))


def test_a_source_that_does_not_exist_is_named_before_ray_starts(tmp_path: Path):
    locations = {"source": {"uri": str(tmp_path / "no")}, "store": {"uri": str(tmp_path / "store")}}
    with pytest.raises(MissingFileError) as caught:
        prepare(config_from_tree(locations))
    assert caught.value.setting == f"source.uri = {tmp_path / 'no'}"
    assert caught.value.cause


def _events(path: Path, *, changed_from: float = np.inf) -> None:
    """Three sequences of 60 events; events at or after ``changed_from`` are drawn again."""
    path.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for name in ("a", "b", "c"):
        before, after = (np.random.default_rng([ord(name), stream]) for stream in (0, 1))
        time = 0.0
        for _ in range(60):
            rng = before if time < changed_from else after
            time += float(rng.integers(1, 9))
            if time >= changed_from:
                rng = after
            kind, word = rng.integers(0, 3), rng.choice(["some", "words of", "text"])
            rows.append({"who": name, "t": time, "k": kind, "w": word})
    write_rows(path / "events.csv", rows)


COLUMNS = Columns(time="t", sequence="who", type="k", text="w")
CUTS = {"validation_from": 150.0, "test_from": 200.0}


def _write_store(folder: Path, *, changed_from: float = np.inf) -> SampleSettings:
    """Write a store that is cut in time, and return the settings of its training samples."""
    source = folder / "raw"
    _events(source, changed_from=changed_from)
    encode_shard(
        str(folder / "s"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(source),
        source_kind="columns",
        columns=COLUMNS,
        split_by="time",
        **CUTS,
    )
    return SampleSettings(
        store=StoreSettings(str(folder / "s"), "x", 56, tick=1.0),
        compression=Compression("temporal", delta=0.5),
        template=TemplateSettings("minimal", images="none", image_tokens=4, time_bytes=2),
        max_tokens=120,
        overlap_fraction=0.5,
        time_from=None,
        time_to=None,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=False,
        seed=0,
    )


def _rows(settings: SampleSettings) -> pa.Table:
    plan = make_plan(settings, VOCABULARY.token_ids())
    table = samples_table(plan, np.arange(plan.num_samples))
    return Assembler(settings, VOCABULARY.token_ids())(table)


def _flat(rows: pa.Table, name: str) -> np.ndarray:
    return np.concatenate([np.array(row) for row in rows[name].to_pylist()])


EVERY_EVENT = EveryEvent(("time", "type"), labels_history=True)


@pytest.mark.parametrize("supervision", [AllTokens(), EVERY_EVENT])
def test_events_after_the_cut_change_nothing_before_it(tmp_path: Path, supervision: Supervision):
    """With other validation and test events, training samples and baselines are the same."""
    base, other_after_150, other_after_200 = (
        replace(
            _write_store(tmp_path / str(changed_from), changed_from=changed_from),
            supervision=supervision,
        )
        for changed_from in (np.inf, 150.0, 200.0)
    )
    test_rows = _rows(replace(base, split="test"))
    assert not _rows(replace(other_after_150, split="test")).equals(test_rows)
    assert _rows(other_after_150).equals(_rows(base))
    assert _flat(_rows(base), "event_time").max() < 150
    actual, expected = count_training_events(other_after_150), count_training_events(base)
    assert actual.num_events == expected.num_events > 0
    assert actual.interval_codes == expected.interval_codes
    assert actual.type_counts.tolist() == expected.type_counts.tolist()
    assert interval_range(other_after_150) == interval_range(base)
    actual_histories = read_histories(other_after_150, [0, 1, 2])
    expected_histories = read_histories(base, [0, 1, 2])
    for actual, expected in zip(actual_histories, expected_histories, strict=True):
        assert actual.times.tolist() == expected.times.tolist()
        assert actual.types.tolist() == expected.types.tolist()
        assert expected.times[-1] < 150
    validation_rows = _rows(replace(base, split="validation"))
    assert _rows(replace(other_after_200, split="validation")).equals(validation_rows)


@pytest.mark.parametrize("supervision", [AllTokens(), EVERY_EVENT])
@pytest.mark.parametrize(("split", "start", "end"), [("validation", 150, 200), ("test", 200, 1e9)])
def test_only_events_after_the_cut_are_scored(
    tmp_path: Path, supervision: Supervision, split: str, start: float, end: float
):
    settings = replace(
        _write_store(tmp_path), supervision=supervision, compression=Compression("none")
    )
    rows = _rows(replace(settings, split=split))
    times, scored = _flat(rows, "event_time"), _flat(rows, "event_is_scored")
    histories = read_histories(replace(settings, split="test"), [0, 1, 2])
    expected = np.sort(np.concatenate([history.times for history in histories]))
    expected = expected[(expected >= start) & (expected < end)]
    assert np.sort(times[scored]).tolist() == expected.tolist()
    assert times.max() < end
    assert times.min() < start  # earlier events are known
    assert (~scored & (times < start)).sum() == (times < start).sum()


def test_predictions_start_from_the_whole_sequence(tmp_path: Path):
    settings = _write_store(tmp_path)
    rows = _rows(replace(settings, split="all", supervision=FollowingEvent(("time",))))
    histories = read_histories(replace(settings, split="test"), [0, 1, 2])
    last_times = [history.times[-1] for history in histories]
    assert [row[-1] for row in rows["event_time"].to_pylist()] == last_times


@pytest.mark.parametrize("split", ["validation", "test"])
def test_futures_begin_and_end_within_the_split(tmp_path: Path, split: str):
    horizon = 20.0
    settings = replace(
        _write_store(tmp_path),
        split=split,
        supervision=FutureOrigins(("time",), num_origins=5, horizon=horizon),
    )
    histories = {history.sequence_id: history for history in read_histories(settings, [0, 1, 2])}
    plan = make_plan(settings, VOCABULARY.token_ids()).windows
    assert len(plan) >= 6
    start = CUTS[f"{split}_from"]
    for name, end in zip(plan["sequence_id"].to_pylist(), plan["end"].to_pylist(), strict=True):
        times = histories[name].times
        assert times[end - 1] + horizon <= times[-1]
        assert times[end] >= start  # the first event that is forecast
        if split == "validation":
            assert times[-1] < CUTS["test_from"]


def test_a_store_is_read_whole_or_by_split(tmp_path: Path):
    _events(tmp_path / "raw")
    store = str(tmp_path / "store")
    changes = {"source_kind": "columns", "columns": COLUMNS, "split_by": "time", **CUTS}
    counts = encode_shard(
        join(store, "data-x"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(tmp_path / "raw"),
        **changes,
    )
    totals = Totals()
    totals.add(counts)
    settings = EncodeSettings(**{**SETTINGS, "source_uri": str(tmp_path / "raw"), **changes})
    manifest = totals.build_manifest(settings, "request", "data-x", VOCABULARY.hash)
    manifest.save(store)
    assert (manifest.sequences, manifest.split_by, manifest.tick) == (3, "time", 1.0)
    assert manifest.sequences_by_split == {"train": 3, "validation": 3, "test": 3}
    assert sum(manifest.events_by_split.values()) == manifest.events_kept == 180
    whole = {sequence.sequence_id: sequence for sequence in mmtpp.load_sequences(store)}
    assert [len(sequence) for sequence in whole.values()] == [60, 60, 60]
    limits = {"train": (-np.inf, 150), "validation": (150, 200), "test": (200, np.inf)}
    for split, (start, end) in limits.items():
        sequences = mmtpp.load_sequences(store, split=split)
        assert len(sequences) == 3
        for sequence in sequences:
            expected = whole[sequence.sequence_id]
            inside = (expected.times >= start) & (expected.times < end)
            assert sequence.times.tolist() == expected.times[inside].tolist()
            expected_texts = zip(expected.texts, inside, strict=True)
            assert list(sequence.texts) == [text for text, is_in in expected_texts if is_in]
    # another cut makes another store
    changes["test_from"] = 210.0
    other_counts = encode_shard(
        join(store, "data-y"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(tmp_path / "raw"),
        **changes,
    )
    assert set(counts["digests"]).isdisjoint(other_counts["digests"])
