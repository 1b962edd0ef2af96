"""Sequences whose newest event, or every event, was rejected: marked, counted and named."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import mmtpp
from mmtpp.cli.main import main
from mmtpp.core.events import Rejected
from mmtpp.core.rejection_summary import MAX_NAMED, RejectionSummary, newest_rejection_cause
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.totals import Totals
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns, build_columns_reader
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.data.store.layout import REJECTED, SEQUENCES
from mmtpp.model.tokens.vocabulary import train_tokenizer
from mmtpp.predict.rejections import Rejections
from mmtpp.storage.parquet import read_table
from tests.helpers.steps import SETTINGS, encode_shard

TOKENIZER = train_tokenizer(["some words of text", "and more"], size=300)
COLUMNS = {"time": "t", "sequence": "s", "type": "k"}
LINES = {
    "whole": ["1,a", "2,b"],
    "oldest": ["0,x", "1,a", "2,b"],
    "middle": ["1,a", "2,x", "3,b"],
    "newest": ["1,a", "2,b", "9,x"],
    "newest-by-time": ["9,x", "1,a", "2,b"],
    "tie-before": ["1,a", "2,x", "2,b"],
    "tie-after": ["1,a", "2,b", "2,x"],
    "unreadable-last": ["1,a", "2,b", "soon,a"],
    "unreadable-first": ["soon,a", "1,a", "2,b"],
    "two": ["9,x", "1,a", "soon,b"],
    "gone": ["5,x"],
    "gone-too": ["soon,a", "7,x"],
}
NEWEST = {
    "newest": "unknown_type",
    "newest-by-time": "unknown_type",
    "tie-after": "unknown_type",
    "unreadable-last": "unreadable_time",
    "two": "unknown_type",
}
GONE = ("gone", "gone-too")


def _write(folder: Path) -> Path:
    """Write events of the types a and b; x is unknown. One row has too many fields, so its sequence
    is unknown."""
    lines = [f"{name},{line}" for name, lines in LINES.items() for line in lines]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.csv"
    path.write_text("\n".join(["s,t,k", *lines, "lost,1,a,more"]) + "\n")
    return path


def _parsed(path: Path) -> ParsedFile:
    reader = build_columns_reader(Columns(**COLUMNS), seconds_per_unit=1.0)
    return read_file(reader, path.name, path.read_bytes(), types=TypeCodes(("a", "b")))


def test_newest_and_lost_by_hand(tmp_path: Path):
    parsed = _parsed(_write(tmp_path))
    last_times = {sequence.sequence_id: float(sequence.times[-1]) for sequence in parsed.sequences}
    losses = RejectionSummary.from_records(parsed.rejected, last_times)
    assert losses.newest_causes == NEWEST
    assert losses.empty_sequences == GONE
    assert (losses.num_unknown, losses.unreadable_files) == (1, ())
    assert "rejected records that name no sequence: 1" in losses.sentences()
    by_row = {record.row: record for record in parsed.rejected}
    assert by_row[2].time == 0.0
    unreadable = [record for record in parsed.rejected if record.time is None]
    assert {record.sequence_id for record in unreadable} == {
        "unreadable-last",
        "unreadable-first",
        "two",
        "gone-too",
        "",
    }


def test_the_newest_of_several_is_named():
    def record(time: float | None, cause: str, *, is_last: bool = False) -> Rejected:
        return Rejected("f", 0, cause, "", "", "s", time, is_last)

    records = [record(8.0, "b"), record(9.0, "c"), record(None, "d", is_last=True)]
    assert newest_rejection_cause(records, 3.0) == "c"
    assert newest_rejection_cause(records, 8.5) == "c"
    assert newest_rejection_cause(records, 10.0) == "d"
    assert newest_rejection_cause(records[:2], 10.0) == ""
    assert newest_rejection_cause([], 10.0) == ""


def test_names_are_bounded():
    records = [Rejected("f", 0, "x", "", "", f"s{n:03}", 1.0) for n in range(100)]
    losses = RejectionSummary.from_records(
        [*records, Rejected("bad.csv", -1, "malformed_file", "", "")], {"s007": 0.5}
    )
    report = losses.report()
    assert (
        report["newest_event_rejected"],
        report["newest_event_rejected_of"],
    ) == (1, {"s007": "x"})
    assert report["sequences_without_events"] == 99
    assert [f"s{n:03}" for n in range(MAX_NAMED + 1) if n != 7] == report[
        "sequences_without_events_are"
    ]
    assert (
        report["rejected_of_unknown_sequence"],
        report["files_rejected_are"],
    ) == (0, ["bad.csv"])
    sentences = "\n".join(losses.sentences())
    assert "and 79 more" in sentences
    assert "files that could not be read: 1, 'bad.csv'" in sentences
    json.dumps(report)


def test_forecasts_are_marked(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Mark forecasts as the job does, from the store and the forecasts of kept sequences."""
    raw, store = _write(tmp_path / "raw"), tmp_path / "store"
    counts = encode_shard(
        str(store / "data"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(raw.parent),
        source_kind="columns",
        columns=Columns(**COLUMNS),
        type_names=("a", "b"),
    )
    totals = Totals()
    totals.add(counts)
    settings = EncodeSettings(**{**SETTINGS, "source_uri": str(raw.parent)})
    manifest = totals.build_manifest(settings, "request", "data", "hash")
    num_lines = sum(map(len, LINES.values())) + 1
    assert {
        key: value for key, value in manifest.counts().items() if key != "rejected_by_cause"
    } == {"events_read": num_lines, "events_kept": num_lines - 14, "events_rejected": 14}
    kept = {sequence.sequence_id: float(sequence.times[-1]) for sequence in _parsed(raw).sequences}
    forecasts = pa.table({"sequence_id": list(kept), "last_time": list(kept.values())})
    rejections = Rejections(str(store), manifest)
    marked = pa.concat_tables([rejections.mark(forecasts[:4]), rejections.mark(forecasts[4:])])
    causes = dict(
        zip(
            marked["sequence_id"].to_pylist(),
            marked["newest_event_rejected"].to_pylist(),
            strict=True,
        )
    )
    assert set(causes) == set(LINES) - set(GONE)
    assert {name: cause for name, cause in causes.items() if cause} == NEWEST
    assert rejections.losses().empty_sequences == GONE
    assert "sequences whose newest event was rejected: 5, 'newest' (unknown_type)" in caplog.text
    assert "sequences without any event that was kept: 2, 'gone', 'gone-too'" in caplog.text
    # nothing is lost where nothing was rejected
    caplog.clear()
    clean = Rejections(str(store), replace(manifest, events_rejected=0))
    assert clean.mark(forecasts)["newest_event_rejected"].to_pylist() == [None] * len(kept)
    assert not clean.losses()
    assert not caplog.records


def test_a_store_of_an_earlier_version_is_read(tmp_path: Path):
    raw, store = _write(tmp_path / "raw"), tmp_path / "data"
    encode_shard(
        str(store),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(raw.parent),
        source_kind="columns",
        columns=Columns(**COLUMNS),
        type_names=("a", "b"),
    )
    table = read_table(str(store / REJECTED / "000000.parquet"))
    assert {"sequence_id", "time", "is_last"} <= set(table.column_names)
    old = table.drop_columns(["sequence_id", "time", "is_last"]).to_pylist()
    records = [Rejected(**row) for row in old]
    assert {(record.sequence_id, record.time, record.is_last) for record in records} == {
        ("", None, False)
    }
    assert (store / SEQUENCES / "000000.parquet").exists()


def test_an_event_lost_for_its_image_counts_too(tmp_path: Path):
    """Three files with one sequence: the last, the first or every image is missing."""
    raw = tmp_path / "raw"
    raw.mkdir()
    images = {"last": [None, "no.png"], "first": ["no.png", None], "all": ["no.png", "no.png"]}
    for name, paths in images.items():
        events = [
            {
                "time": float(place),
                "text": "",
                "image_path": path,
                "TPP_attribute": {"event_type": 0},
            }
            for place, path in enumerate(paths)
        ]
        (raw / f"{name}.json").write_text(json.dumps(events))
    store = tmp_path / "store"
    encode_shard(
        str(store),
        sorted(f"{name}.json" for name in images),
        tokenizer=TOKENIZER,
        source_uri=str(raw),
    )
    table = read_table(str(store / REJECTED / "000000.parquet"))
    losses = RejectionSummary.from_records(
        [Rejected(**row) for row in table.to_pylist()], {"last": 0.0, "first": 1.0}
    )
    assert losses.newest_causes == {"last": "unreadable_image"}
    assert losses.empty_sequences == ("all",)


def test_inspect_and_the_api_name_them(
    tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    path = _write(tmp_path / "raw")
    chosen = [f"source.columns.{key}={value}" for key, value in COLUMNS.items()]
    arguments = [
        word for setting in [*chosen, 'source.types=["a","b"]'] for word in ("--set", setting)
    ]
    page = tmp_path / "page.html"
    assert main(["inspect", str(path), "--kind", "columns", "--html", str(page), *arguments]) == 0
    text = capsys.readouterr().out
    for place in (text, page.read_text().replace("&#39;", "'")):
        assert "sequences whose newest event was rejected: 5, 'newest' (unknown_type)" in place
        assert "sequences without any event that was kept: 2, 'gone', 'gone-too'" in place
    with caplog.at_level(logging.WARNING):
        sequences = mmtpp.load_sequences(path, columns=COLUMNS, types=("a", "b"))
    assert sequences.losses.empty_sequences == GONE
    assert sequences.losses.newest_causes == NEWEST
    assert "sequences without any event that was kept: 2" in caplog.text
