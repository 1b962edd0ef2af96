"""Events that do not fit the context: named, counted, and in every sample with a part of their
text."""

import csv
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.api.history_reader import HistoryReader
from mmtpp.cli.main import main
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.events import NO_FRAME, Events, EventSequence
from mmtpp.core.representation.branches import branch_costs, lay_out_branches
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.row import HISTORY
from mmtpp.core.representation.supervision import (
    AllTokens,
    EveryEvent,
    FollowingEvent,
    FutureOrigins,
    Supervision,
)
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.text_truncation import (
    cut_with_truncation,
    truncate_texts,
    truncate_texts_to_fit,
)
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.representation.window import EventTooLongError, Window, cut_windows, last_window
from mmtpp.data.encode.shard_columns import ShardColumns
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.long_events import find_long_events
from mmtpp.data.samples.long_texts import MAX_EXAMPLES, LongTexts
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import load_plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.layout import SEQUENCES
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.steps import encode_shard
from tests.unit.generators import IDS, TEMPLATES, events, plain_events

WORDS = "one two three four five six seven eight nine ten"
TOKENIZER = train_tokenizer([WORDS], size=400)
VOCABULARY = Vocabulary(TOKENIZER)
LONG = " ".join([WORDS] * 60)  # far more than the context below
MAX_TOKENS = 400
EVERYTHING = ("time", "type", "joint", "text")


@st.composite
def _wordy_events(draw: st.DrawFn) -> Events:
    lengths = draw(st.lists(st.sampled_from([0, 3, 40, 90, 400]), min_size=2, max_size=12))
    return plain_events(
        len(lengths),
        text_ids=np.arange(sum(lengths), dtype=np.int32),
        text_offsets=np.cumsum([0, *lengths]).astype(np.int64),
        frames=np.array(
            draw(st.lists(st.integers(-1, 1), min_size=len(lengths), max_size=len(lengths))),
            dtype=np.int32,
        ),
        similar=np.array(
            [
                False,
                *draw(
                    st.lists(st.booleans(), min_size=len(lengths) - 1, max_size=len(lengths) - 1)
                ),
            ]
        ),
    )


@given(_wordy_events(), st.integers(0, 100))
def test_shortened_texts_are_the_first_tokens(sequence: Events, limit: int):
    truncated = truncate_texts(sequence, limit)
    for event in range(len(sequence)):
        whole, part = (
            events.text_ids[slice(*events.text_offsets[event : event + 2])].tolist()
            for events in (sequence, truncated)
        )
        assert part == whole[:limit]
        to_half = truncate_texts_to_fit(sequence, limit, max_tokens=100)
        part = to_half.text_ids[slice(*to_half.text_offsets[event : event + 2])].tolist()
        assert part == (whole if len(whole) <= limit else whole[: min(limit, 50)])
    without_ids = truncate_texts(replace(sequence, text_ids=sequence.text_ids[:0]), limit)
    assert without_ids.text_offsets.tolist() == truncated.text_offsets.tolist()
    assert truncate_texts(sequence, None) is sequence


@given(TEMPLATES, _wordy_events(), st.sampled_from([(), ("time", "type"), EVERYTHING]))
def test_every_event_is_in_a_window_however_long(
    chosen: TemplateSettings, sequence: Events, tasks: tuple[str, ...]
):
    template, budget = Template(IDS, chosen, has_questions=bool(tasks)), 200

    def cut(events: Events) -> list[Window]:
        costs = branch_costs(template, events, tasks=tasks) if tasks else None
        return cut_windows(
            events, template, max_tokens=budget, overlap_fraction=0.5, branch_costs=costs
        )

    windows, limit = cut_with_truncation(sequence, cut, max_tokens=budget)
    scored = [event for window in windows for event in range(window.first_scored, window.end)]
    assert list(range(1, len(sequence))) == scored
    short = truncate_texts_to_fit(sequence, limit, max_tokens=budget)
    for window in windows:
        inside = short.slice(window.start, window.end)
        targets = range(window.first_scored - window.start, len(inside))
        tokens = (
            lay_out_branches(template, inside, targets, tasks=tasks).tokens
            if tasks
            else template.write(inside)
        )
        assert len(tokens.ids) <= window.num_tokens <= budget
    if limit is not None:
        with pytest.raises(EventTooLongError):
            cut(sequence)
        with pytest.raises(EventTooLongError):  # a token more does not fit
            cut(truncate_texts_to_fit(sequence, limit + 1, max_tokens=budget))


def test_the_limit_by_hand():
    """``minimal``: 6 tokens per event. The text of 100 is cut to 32, half of 64, unless its event
    has to be shorter; with another event and a question that makes 6 + 38 + 10."""
    template = Template(IDS, TemplateSettings("minimal", "none", 4))
    sequence = plain_events(
        3, text_ids=np.zeros(100, np.int32), text_offsets=np.array([0, 0, 100, 100])
    )

    def last(events: Events) -> Window:
        return last_window(events.slice(0, 2), template, max_tokens=64, question_tokens=10)

    window, limit = cut_with_truncation(sequence, last, max_tokens=64)
    assert (limit, window.start, window.end, window.num_tokens) == (99, 0, 2, 54)
    with pytest.raises(EventTooLongError, match="event 2 takes 106 tokens, more than 54"):
        last(sequence)
    # with a question of 40 tokens there are 24 for the event, 18 of them for its text
    window, limit = cut_with_truncation(
        sequence,
        lambda events: last_window(events.slice(0, 2), template, max_tokens=64, question_tokens=40),
        max_tokens=64,
    )
    assert (limit, window.start, window.num_tokens) == (18, 1, 64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    """Six sequences of eight events; in "s3" the text of event 5 is long, that of 2 not short."""
    raw, folder = (tmp_path_factory.mktemp(name) for name in ("raw", "store"))
    lines = ["s,t,x"]
    for name in range(6):
        for event in range(8):
            text = {5: LONG, 2: f"{WORDS} {WORDS}"}.get(event, "one two") if name == 3 else "one"
            lines.append(f"s{name},{3 * event},{text}")
    (raw / "events.csv").write_text("\n".join(lines) + "\n")
    encode_shard(
        str(folder),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(raw),
        source_kind="columns",
        columns=Columns(time="t", sequence="s", text="x"),
    )
    return StoreSettings(str(folder), "x" * 64, 56)


def _settings(store: StoreSettings, **changes: object) -> SampleSettings:
    default = SampleSettings(
        store=store,
        compression=Compression("none"),
        template=TemplateSettings("paper", "none", 4),
        max_tokens=MAX_TOKENS,
        overlap_fraction=0.0,
        time_from=None,
        time_to=None,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=True,
        seed=0,
    )
    return replace(default, **changes)


ASKED = {
    "plain": AllTokens(),
    "targets": EveryEvent(EVERYTHING),
    "ahead": FollowingEvent(("time", "type")),
    "futures": FutureOrigins(("time",), num_origins=3, horizon=4.0),
}


@pytest.mark.parametrize("supervision", ASKED.values(), ids=ASKED)
def test_samples_hold_the_event_with_the_start_of_its_text(
    store: StoreSettings, supervision: Supervision, caplog: pytest.LogCaptureFixture
):
    chosen = _settings(store, supervision=supervision)
    plan = make_plan(chosen, VOCABULARY.token_ids())
    assert plan.long_texts.cut_to_fit == plan.metrics()["data/texts_cut_to_fit"] == 1
    assert "texts cut, because events did not fit window.max_tokens = 400: 1;" in caplog.text
    assert "sequence 's3', event 6: a text of" in caplog.text
    whole = VOCABULARY.encode_texts([LONG, f"{WORDS} {WORDS}"])
    rows = Assembler(chosen, VOCABULARY.token_ids())(
        samples_table(plan, np.arange(plan.num_samples))
    )
    written: set[int] = set()
    for index in range(len(rows)):
        row = row_from_arrow(rows, index, image_px=56)
        assert len(row.input_ids) <= MAX_TOKENS
        names = np.array(rows["sequences"][index].as_py())[row.segment]
        position = np.array([*rows["event_position"][index].as_py(), -1])  # -1: none yet
        of_event = (names == "s3") & (position[row.event] == 5) & (row.event >= 0)
        if row.branches is not None:  # a branch repeats the text
            of_event &= row.branches.branch == HISTORY
        text = row.input_ids[of_event & (row.modality == Modality.TEXT)].tolist()
        if text:
            assert whole[0][: len(text)] == text
            written.add(len(text))
    [size] = written
    if isinstance(supervision, EveryEvent):  # its question about the text takes tokens, too
        assert 0 < size < MAX_TOKENS // 2
    else:
        assert size == MAX_TOKENS // 2
    scored = [
        (window["sequence_id"], event)
        for window in plan.windows.to_pylist()
        for event in range(window["first_scored"], window["end"])
    ]
    if isinstance(supervision, AllTokens | EveryEvent):
        assert [(f"s{name}", event) for name in range(6) for event in range(1, 8)] == sorted(scored)


def test_stop_names_file_sequence_and_setting(store: StoreSettings):
    with pytest.raises(DataError) as caught:
        make_plan(_settings(store, long_events="fail"), VOCABULARY.token_ids())
    message = str(caught.value)
    assert "sequence 's3': event 6 takes" in message
    assert "000000.parquet" in message
    assert "window.long_events = fail" in message
    assert "template.max_text_tokens = 0" in message
    # with truncated texts everything fits
    make_plan(_settings(store, long_events="fail", max_text_tokens=9), VOCABULARY.token_ids())


def test_an_event_that_does_not_fit_without_its_text_is_an_error(store: StoreSettings):
    with pytest.raises(DataError, match="even without its text"):
        make_plan(_settings(store, max_tokens=20), VOCABULARY.token_ids())


def test_texts_are_truncated_in_samples_and_whole_in_the_store(
    store: StoreSettings, tmp_path: Path
):
    """Two texts of the store have more than four tokens."""
    chosen = _settings(store, max_text_tokens=4)
    plan = make_plan(chosen, VOCABULARY.token_ids())
    assert LongTexts(truncated=2) == plan.long_texts
    assert plan.metrics()["data/texts_truncated"] == 2.0
    rows = Assembler(chosen, VOCABULARY.token_ids())(
        samples_table(plan, np.arange(plan.num_samples))
    )
    sizes = []
    for index in range(len(rows)):
        row = row_from_arrow(rows, index, image_px=56)
        is_text = row.modality == Modality.TEXT
        sizes += np.unique(row.event[is_text], return_counts=True)[1].tolist()
    one, two = (len(ids) for ids in VOCABULARY.encode_texts(["one", "one two"]))
    assert sorted(sizes) == sorted([one] * 40 + [two] * 6 + [4] * 2)
    [stored] = [
        sequence
        for sequence in StoreReader(store).sequences(["000000.parquet"])
        if sequence.sequence_id == "s3"
    ]
    assert len(VOCABULARY.encode_texts([LONG])[0]) == np.diff(stored.events.text_offsets)[5]
    plan.save(str(tmp_path / "plan.parquet"))
    loaded = load_plan(str(tmp_path / "plan.parquet"))
    assert loaded.long_texts == plan.long_texts
    assert loaded.windows.equals(plan.windows)


def test_a_plan_of_an_earlier_version_is_read(store: StoreSettings, tmp_path: Path):
    plan = make_plan(_settings(store, max_text_tokens=4), VOCABULARY.token_ids())
    plan.save(str(tmp_path / "plan.parquet"))
    table = pq.read_table(tmp_path / "plan.parquet")
    metadata = {key: value for key, value in table.schema.metadata.items() if key != b"long_texts"}
    old = table.drop_columns(["longest_text"]).replace_schema_metadata(metadata)
    pq.write_table(old, tmp_path / "old.parquet")
    loaded = load_plan(str(tmp_path / "old.parquet"))
    assert loaded.long_texts == LongTexts()
    Assembler(_settings(store), VOCABULARY.token_ids())(samples_table(loaded, np.arange(1)))


def test_without_a_limit_the_order_of_samples_is_that_of_earlier_versions(store: StoreSettings):
    chosen = _settings(store, max_tokens=256)
    assert replace(chosen, long_events="fail").fingerprint == chosen.fingerprint
    assert replace(chosen, max_text_tokens=4).fingerprint != chosen.fingerprint
    # computed with the version before these settings
    assert chosen.fingerprint.startswith("123ee0ed75de1b56")


def test_events_that_do_not_fit_are_found_in_a_store(store: StoreSettings):
    long_events = find_long_events(_settings(store), VOCABULARY.token_ids())
    tokens = len(VOCABULARY.encode_texts([LONG])[0])
    template = _settings(store).build_template(VOCABULARY.token_ids())
    empty = len(template.write(plain_events(1)).ids)
    assert long_events.count == 1
    assert long_events.examples == (f"sequence 's3', event 6: {tokens + empty:,} tokens",)
    # every event has a text of at least one token
    long_events = find_long_events(_settings(store, max_tokens=empty), VOCABULARY.token_ids())
    assert (long_events.count, len(long_events.examples)) == (48, MAX_EXAMPLES)
    long_events = find_long_events(_settings(store, max_text_tokens=4), VOCABULARY.token_ids())
    assert long_events.count == 0


def test_files_without_a_long_text_are_not_read_to_find_them(
    store: StoreSettings, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    original = StoreReader.sequences

    def recorded(self, files, **options):
        read.extend(files := list(files))
        return original(self, files, **options)

    monkeypatch.setattr(StoreReader, "sequences", recorded)
    reader = StoreReader(store)
    by_file = {
        file: max(
            int(np.diff(sequence.events.text_offsets).max())
            for sequence in original(reader, [file])
        )
        for file in reader.files()
    }
    assert {file: reader.longest_text(file) for file in by_file} == by_file
    template = _settings(store).build_template(VOCABULARY.token_ids())
    longest, max_tokens = max(by_file.values()), template.max_cost_alone(max(by_file.values()))
    for limit, is_read in ((max_tokens, False), (max_tokens - 1, True)):
        find_long_events(_settings(store, max_tokens=limit), VOCABULARY.token_ids())
        expected = [file for file, tokens in by_file.items() if tokens == longest and is_read]
        assert read == expected
        read.clear()


def test_a_file_without_a_sequence_has_no_long_event(tmp_path: Path):
    empty = ShardColumns.from_sequences(
        [], paths=[], splits=[], tokenise=TextTokeniser(VOCABULARY)
    )[0]
    (tmp_path / SEQUENCES).mkdir()
    empty.write(str(tmp_path / SEQUENCES / "000000.parquet"))
    store = StoreSettings(str(tmp_path), "x" * 64, 56)
    assert StoreReader(store).longest_text("000000.parquet") == 0
    assert find_long_events(_settings(store), VOCABULARY.token_ids()).count == 0


@given(TEMPLATES, events(min_size=1, max_size=9))
def test_no_event_alone_costs_more_than_the_maximum(chosen: TemplateSettings, some: Events):
    template = Template(IDS, chosen)
    lengths = np.diff(some.text_offsets)
    maxima = np.array([template.max_cost_alone(int(length)) for length in lengths])
    costs = template.costs_alone(some)
    assert (costs <= maxima).all()
    shows = (some.frames != NO_FRAME) | (chosen.images == "none")
    assert (costs == maxima)[shows].all()


QUESTIONS = (("one?", "two"), (LONG, "two"), ("three?", LONG), (f"{WORDS} {WORDS}?", "ten"))


def test_questions_that_do_not_fit_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The newest event does not fit together with a question either, so its text is cut."""
    sequence = EventSequence(
        "q", np.arange(3.0), np.zeros(3, np.int16), ("one", "two", LONG), (None,) * 3, QUESTIONS
    )
    columns, _ = ShardColumns.from_sequences(
        [sequence], paths=["q"], splits=["train"], tokenise=TextTokeniser(VOCABULARY)
    )
    columns.write(str(tmp_path / SEQUENCES / "000000.parquet"))
    store = StoreSettings(str(tmp_path), "x", 56)
    chosen = _settings(store, supervision=EveryEvent(("qa",)))
    plan = make_plan(chosen, VOCABULARY.token_ids())
    asked = [
        place
        for window in plan.windows.to_pylist()
        for place in range(window["first_question"], window["end_question"])
    ]
    assert sorted(asked) == [0, 3]
    assert (plan.long_texts.left_out, plan.long_texts.cut_to_fit) == (2, 1)
    assert "sequence 'q', question 2" in caplog.text
    assert "sequence 'q', question 3" in caplog.text
    rows = Assembler(chosen, VOCABULARY.token_ids())(
        samples_table(plan, np.arange(plan.num_samples))
    )
    sizes = [len(ids) for ids in rows["input_ids"].to_pylist()]
    assert max(sizes) <= MAX_TOKENS
    with pytest.raises(DataError, match="question in words does not fit"):
        make_plan(replace(chosen, long_events="fail"), VOCABULARY.token_ids())
    with pytest.raises(DataError, match="no question to ask") as caught:
        make_plan(replace(chosen, max_tokens=30), VOCABULARY.token_ids())
    assert "questions in words left out" in str(caught.value)


@pytest.mark.skipif("MMTPP_TEST_DATA" not in os.environ, reason="MMTPP_TEST_DATA names no data")
def test_the_longest_utterances_of_real_transcripts(tmp_path: Path):
    folder = Path(os.environ["MMTPP_TEST_DATA"]) / "transcripts_spaceflight"
    with gzip.open(folder / "utterances.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    vocabulary = Vocabulary(train_tokenizer([row["text"] for row in rows[::20]], size=1536))
    counts = encode_shard(
        str(tmp_path),
        ["utterances.csv.gz"],
        tokenizer=vocabulary.tokenizer_json,
        source_uri=str(folder),
        source_kind="columns",
        columns=Columns(time="seconds", sequence="part", text="text"),
    )
    chosen = _settings(StoreSettings(str(tmp_path), "x", 56), max_tokens=512)
    texts = [row["text"] for row in rows]
    lengths = np.array([len(ids) for ids in vocabulary.encode_texts(texts)])
    empty = len(chosen.build_template(vocabulary.token_ids()).write(plain_events(1)).ids)
    expected = int((lengths + empty > 512).sum())
    assert expected > 0
    assert find_long_events(chosen, vocabulary.token_ids()).count == expected
    plan = make_plan(chosen, vocabulary.token_ids())
    assert plan.long_texts.cut_to_fit == expected
    num_scored = sum(w["end"] - w["first_scored"] for w in plan.windows.to_pylist())
    kept = counts["events_by_split"]["train"]
    assert kept - counts["sequences_by_split"]["train"] == num_scored
    assert kept + sum(counts["rejected"].values()) == len(rows)
    longest = int(np.argmax(lengths))
    for supervision in ASKED.values():
        asked = make_plan(replace(chosen, supervision=supervision), vocabulary.token_ids())
        assert max(asked.windows["num_tokens"].to_pylist()) <= 512
    assert rows[longest]["part"] in set(plan.windows["sequence_id"].to_pylist())


def test_inspect_reports_the_events_that_do_not_fit(tmp_path: Path, capsys):
    lines = [
        f"s{n},{3 * e},{LONG if (n, e) == (1, 4) else 'one'}" for n in range(3) for e in range(6)
    ]
    (tmp_path / "events.csv").write_text("\n".join(["s,t,x", *lines]) + "\n")
    settings = [
        "source.columns.time=t",
        "source.columns.sequence=s",
        "source.columns.text=x",
        "window.max_tokens=256",
    ]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    out = tmp_path / "report.json"
    command = ["inspect", str(tmp_path / "events.csv"), "--kind", "columns", *arguments]
    page = tmp_path / "page.html"
    assert main([*command, "--json", str(out), "--html", str(page)]) == 0
    report = json.loads(out.read_text())
    [event] = report["too_long"]
    assert (report["num_too_long"], event["sequence"], event["event"]) == (1, "s1", 4)
    assert report["text_tokens"][-1] < event["tokens"] < report["text_tokens"][-1] + 60
    text = capsys.readouterr().out
    assert "events that do not fit window.max_tokens = 256: 1;" in text
    assert f"sequence 's1', event 5: {event['tokens']:,} tokens" in text
    assert '<td class="name">s1</td><td>5</td>' in page.read_text()
    assert main([*command, "--set", "template.max_text_tokens=8", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report["num_too_long"], report["num_texts_truncated"]) == (0, 1)


def test_the_api_chooses_the_windows_of_the_job(
    store: StoreSettings, caplog: pytest.LogCaptureFixture
):
    """With a long text and with truncated texts."""
    for values in ({}, {"template.max_text_tokens": 9}, {"window.max_tokens": 250}):
        config = with_values(
            RunConfig(),
            {
                "window.max_tokens": MAX_TOKENS,
                "compression.strategy": "none",
                "template.images": "none",
                **values,
            },
        )
        chosen = _settings(
            store,
            supervision=ASKED["ahead"],
            max_tokens=config.window.max_tokens,
            max_text_tokens=config.template.max_text_tokens,
        )
        plan = make_plan(chosen, VOCABULARY.token_ids())
        template = chosen.build_template(VOCABULARY.token_ids())
        history = HistoryReader(config, VOCABULARY, template, ["time", "type"])
        planned = {window["sequence_id"]: window for window in plan.windows.to_pylist()}
        reader = StoreReader(store)
        for stored in reader.sequences(reader.files(), with_text=True):
            caplog.clear()
            window, events = history._fit(stored.events, stored.sequence_id)
            expected = planned[stored.sequence_id]
            assert (window.start, window.end) == (expected["start"], expected["end"])
            assert window.num_tokens == expected["num_tokens"]
            is_cut = (np.diff(events.text_offsets) < np.diff(stored.events.text_offsets))[
                window.start : window.end
            ]
            assert bool(is_cut.any()) == ("texts were truncated" in caplog.text)
    config = with_values(config, {"window.long_events": "fail"})
    history = HistoryReader(config, VOCABULARY, template, ["time"])
    stored_sequences = {stored.sequence_id: stored for stored in reader.sequences(reader.files())}
    with pytest.raises(DataError, match="event 6 takes"):
        history._fit(stored_sequences["s3"].events, "s3")
