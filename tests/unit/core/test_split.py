"""Parts by time: every event in one of them, and nothing of a later part in an earlier one."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmtpp
from mmtpp.config.load import config_from_tree
from mmtpp.core.compression import Compression
from mmtpp.core.errors import ConfigError
from mmtpp.core.split import TimeSplit, events_of_split
from mmtpp.core.supervision import AllTokens, EveryEvent, FollowingEvent, FutureOrigins, Supervision
from mmtpp.core.template import TemplateSettings
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.totals import Totals
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.evaluate.forecast_scores import read_histories
from mmtpp.evaluate.likelihood import training_statistics
from mmtpp.model.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.paths import join
from tests.steps import SETTINGS, encode_shard
from tests.tables import write_rows

TOKENIZER = train_tokenizer(["some words of text"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)


def test_cuts_in_time_by_hand():
    times = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert TimeSplit(None, None, 0.1, 0.2).cuts(times) == (7.0, 8.0)
    assert TimeSplit(4.5, 6.5, 0.1, 0.2).cuts(times) == (4.5, 6.5)
    # the share of validation lies just before a test that is given
    assert TimeSplit(None, 5.0, 0.1, 0.2).cuts(times) == (4.0, 5.0)
    assert TimeSplit(3.0, None, 0.1, 0.2).cuts(times) == (3.0, 8.0)
    # no share, no part
    assert TimeSplit(None, None, 0.0, 0.0).cuts(times) == (np.inf, np.inf)
    # all before, all after
    assert _spans(times, TimeSplit(50.0, 60.0, 0.1, 0.1)) == [(0, 10), (10, 10), (10, 10)]
    assert _spans(times, TimeSplit(None, -1.0, 0.1, 0.1)) == [(0, 0), (0, 0), (0, 10)]
    # simultaneous events stay together, after the cut
    tied = np.array([0.0, 1, 2, 2, 2, 2, 2, 2, 3, 4])
    assert _spans(tied, TimeSplit(None, None, 0.1, 0.2)) == [(0, 2), (2, 8), (8, 10)]


def _spans(times: np.ndarray, split: TimeSplit) -> list[tuple[int, int]]:
    cuts = split.cuts(times)
    return [events_of_split("time", part, times, cuts) for part in ("train", "validation", "test")]


@given(
    st.lists(st.integers(-5, 20), min_size=1, max_size=40),
    st.none() | st.integers(-10, 30),
    st.none() | st.integers(-10, 30),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
)
def test_every_event_is_in_one_part_in_order_of_time(times, validation, test, share, test_share):
    ordered = np.sort(np.array(times, dtype=np.float64))
    if validation is not None and test is not None and validation > test:
        validation = test
    spans = _spans(ordered, TimeSplit(validation, test, share, test_share))
    assert [0, len(ordered)] == [spans[0][0], spans[2][1]]
    assert spans[0][1] == spans[1][0] <= spans[1][1] == spans[2][0]
    for edge in (spans[1][0], spans[2][0]):
        if 0 < edge < len(ordered):
            assert ordered[edge - 1] < ordered[edge]
    if test is not None:
        assert (ordered < test).sum() == spans[2][0]


@pytest.mark.parametrize(
    ("split", "source", "message"),
    [
        ({"by": "hash"}, {"columns": {"time": "t", "split": "fold"}}, "set split.by = given"),
        ({"by": "time"}, {"kind": "danmaku_qa"}, "questions are about whole sequences"),
        (
            {"by": "time", "validation_from": 5, "test_from": "4"},
            {"columns": {"time": "t"}},
            "split.validation_from = 5 is after split.test_from = 4",
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


def test_instants_are_numbers_or_dates():
    found = config_from_tree(
        tomllib.loads('[split]\nby = "time"\nvalidation_from = 2024-03-01\ntest_from = 12.5')
    ).split
    assert (found.validation_from, found.test_from) == ("2024-03-01", "12.5")
    for bad in (
        {"by": "time", "test_from": "soon"},
        {"test_from": 5},
        {"by": "time", "test_from": True},
    ):
        with pytest.raises(ConfigError):
            config_from_tree({"split": bad})


def _events(path: Path, *, changed_from: float = np.inf) -> None:
    """Three sequences of 60 events; those at or after ``changed_from`` are other events."""
    path.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for who in ("a", "b", "c"):
        rng, other = (np.random.default_rng([ord(who), place]) for place in (0, 1))
        time = 0.0
        for _ in range(60):
            source = rng if time < changed_from else other
            time += float(source.integers(1, 9))
            if time >= changed_from:
                source = other
            kind, word = source.integers(0, 3), source.choice(["some", "words of", "text"])
            rows.append({"who": who, "t": time, "k": kind, "w": word})
    write_rows(path / "events.csv", rows)


COLUMNS = Columns(time="t", sequence="who", type="k", text="w")
CUTS = {"validation_from": 150.0, "test_from": 200.0}


def _by_time(folder: Path, *, changed_from: float = np.inf) -> AssembleSettings:
    """A store that is cut in time, and how its samples are made."""
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
    return AssembleSettings(
        store=StoreSettings(str(folder / "s"), "x", 56, tick=1.0),
        compression=Compression("temporal", delta=0.5),
        template=TemplateSettings("minimal", images="none", image_tokens=4, time_bytes=2),
        max_tokens=120,
        overlap_fraction=0.5,
        time_from=-1e300,
        time_to=1e300,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=False,
        seed=0,
    )


def _rows(settings: AssembleSettings) -> pa.Table:
    plan = make_plan(settings, VOCABULARY.token_ids())
    table = samples_table(plan, np.arange(len(plan.samples)))
    return Assembler(settings, VOCABULARY.token_ids())(table)


def _flat(rows: pa.Table, name: str) -> np.ndarray:
    return np.concatenate([np.array(row) for row in rows[name].to_pylist()])


EVERY_EVENT = EveryEvent(("time", "type"), labels_history=True)


@pytest.mark.parametrize("supervision", [AllTokens(), EVERY_EVENT])
def test_events_after_the_cut_change_nothing_before_it(tmp_path: Path, supervision: Supervision):
    """Other validation and test events: the same training samples, baselines and range."""
    one = replace(_by_time(tmp_path / "one"), supervision=supervision)
    other = replace(_by_time(tmp_path / "other", changed_from=150.0), supervision=supervision)
    third = replace(_by_time(tmp_path / "third", changed_from=200.0), supervision=supervision)
    assert not _rows(replace(one, split="test")).equals(_rows(replace(other, split="test")))
    assert _rows(one).equals(_rows(other))
    assert _flat(_rows(one), "event_time").max() < 150
    first, second = (training_statistics(each) for each in (one, other))
    assert first.num_events == second.num_events > 0
    assert first.marginal == second.marginal
    assert first.type_counts.tolist() == second.type_counts.tolist()
    assert interval_range(one) == interval_range(other)
    for a, b in zip(read_histories(one, [0, 1, 2]), read_histories(other, [0, 1, 2]), strict=True):
        assert a.times.tolist() == b.times.tolist()
        assert a.types.tolist() == b.types.tolist()
        assert a.times[-1] < 150
    validation = [_rows(replace(each, split="validation")) for each in (one, third)]
    assert validation[0].equals(validation[1])


@pytest.mark.parametrize("supervision", [AllTokens(), EVERY_EVENT])
@pytest.mark.parametrize(("split", "start", "end"), [("validation", 150, 200), ("test", 200, 1e9)])
def test_scored_events_are_those_after_the_cut(
    tmp_path: Path, supervision: Supervision, split: str, start: float, end: float
):
    settings = replace(_by_time(tmp_path), supervision=supervision, compression=Compression("none"))
    rows = _rows(replace(settings, split=split))
    times, scored = _flat(rows, "event_time"), _flat(rows, "event_is_scored")
    every = [each.times for each in read_histories(replace(settings, split="test"), [0, 1, 2])]
    expected = np.sort(np.concatenate(every))
    expected = expected[(expected >= start) & (expected < end)]
    assert np.sort(times[scored]).tolist() == expected.tolist()
    assert times.max() < end
    assert times.min() < start  # the past is known
    assert (~scored & (times < start)).sum() == (times < start).sum()


def test_the_whole_is_predicted_from(tmp_path: Path):
    settings = _by_time(tmp_path)
    ahead = replace(settings, split="all", supervision=FollowingEvent(("time",)))
    rows = _rows(ahead)
    last = [each.times[-1] for each in read_histories(replace(settings, split="test"), [0, 1, 2])]
    assert [row[-1] for row in rows["event_time"].to_pylist()] == last


@pytest.mark.parametrize("split", ["validation", "test"])
def test_futures_begin_within_the_part_and_end_in_it(tmp_path: Path, split: str):
    horizon = 20.0
    settings = replace(
        _by_time(tmp_path),
        split=split,
        supervision=FutureOrigins(("time",), num_origins=5, horizon=horizon),
    )
    histories = {each.sequence_id: each for each in read_histories(settings, [0, 1, 2])}
    plan = make_plan(settings, VOCABULARY.token_ids()).windows
    assert len(plan) >= 6
    start = CUTS[f"{split}_from"]
    for name, end in zip(plan["sequence_id"].to_pylist(), plan["end"].to_pylist(), strict=True):
        times = histories[name].times
        assert times[end - 1] + horizon <= times[-1]
        assert times[end] >= start  # the first event that is forecast
        if split == "validation":
            assert times[-1] < CUTS["test_from"]


def test_a_store_in_parts_is_read_whole_or_in_parts(tmp_path: Path):
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
    assert 180 == sum(manifest.events_by_split.values()) == manifest.events_kept
    whole = {each.sequence_id: each for each in mmtpp.load_sequences(store)}
    assert [len(each) for each in whole.values()] == [60, 60, 60]
    limits = {"train": (-np.inf, 150), "validation": (150, 200), "test": (200, np.inf)}
    for part, (start, end) in limits.items():
        found = mmtpp.load_sequences(store, split=part)
        assert len(found) == 3
        for sequence in found:
            chosen = whole[sequence.sequence_id]
            inside = (chosen.times >= start) & (chosen.times < end)
            assert chosen.times[inside].tolist() == sequence.times.tolist()
            assert [text for text, kept in zip(chosen.texts, inside, strict=True) if kept] == list(
                sequence.texts
            )
    # another cut is another store
    changes["test_from"] = 210.0
    again = encode_shard(
        join(store, "data-y"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(tmp_path / "raw"),
        **changes,
    )
    assert set(counts["digests"]).isdisjoint(again["digests"])
