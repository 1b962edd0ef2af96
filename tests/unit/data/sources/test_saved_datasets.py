"""Folders of Hugging Face's ``datasets``, and Arrow streams: what is read, damaged files."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict
from datasets.utils.logging import disable_progress_bar

import mmtpp
from mmtpp.cli.main import main
from mmtpp.core.errors import DataError
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.tables import arrow_bytes

ROWS = [{"id": f"s{place // 3}", "t": float(place), "meta": {"k": place % 2}} for place in range(9)]
COLUMNS = {"time": "t", "sequence": "id", "type": "meta.k"}
disable_progress_bar()


def _read(data: bytes) -> ParsedFile:
    reader = build_reader("columns", columns=Columns(**COLUMNS))
    return read_file(reader, "a.arrow", data, types=TypeCodes(()))


def test_a_saved_data_set_is_read_with_its_splits(tmp_path: Path, capsys):
    folder = tmp_path / "events"
    parts = {"train": Dataset.from_list(ROWS[:6]), "test": Dataset.from_list(ROWS[6:])}
    splits = DatasetDict(parts)  # pyright: ignore[reportCallIssue]
    splits.save_to_disk(folder, num_shards={"train": 2, "test": 1})
    report = tmp_path / "report.json"
    arguments = ["inspect", str(folder), "--kind", "columns", "--json", str(report)]
    settings = [f"--set=source.columns.{key}={name}" for key, name in COLUMNS.items()]
    assert main([*arguments, *settings, "--set=split.by=given"]) == 0
    tree = json.loads(report.read_text())
    assert (tree["num_events"], tree["num_sequences"], tree["rejected_by_cause"]) == (9, 3, {})
    assert tree["events_by_split"] == {"train": 6, "validation": 0, "test": 3}
    assert (tree["files_read"], tree["files_not_read"]) == ({".arrow": 3}, {})
    assert "files read, by suffix: 3 .arrow" in capsys.readouterr().out


def test_only_the_files_of_the_data_set_are_read(tmp_path: Path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path)
    shutil.copy(tmp_path / "data-00000-of-00001.arrow", tmp_path / "cache-1.arrow")
    sequences = mmtpp.load_sequences(str(tmp_path), columns=COLUMNS)
    assert sum(map(len, sequences)) == 9
    (tmp_path / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow is missing"):
        mmtpp.load_sequences(str(tmp_path), columns=COLUMNS)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="not the description of a saved data set"):
        mmtpp.load_sequences(str(tmp_path), columns=COLUMNS)


def test_arrow_files_without_a_description_are_all_read(tmp_path: Path):
    (tmp_path / "a.arrow").write_bytes(arrow_bytes(ROWS[:3]))
    (tmp_path / "b.arrow").write_bytes(arrow_bytes(ROWS[3:]))
    assert sum(map(len, mmtpp.load_sequences(str(tmp_path), columns=COLUMNS))) == 9


def test_damaged_streams_are_errors():
    whole = arrow_bytes(ROWS)
    assert sum(map(len, _read(whole).sequences)) == 9
    without_end = whole[:-8]  # pyarrow alone reads it without a word
    assert pa.ipc.open_stream(without_end).read_all().num_rows == 9
    for data in (without_end, whole[: len(whole) // 2], b"PAR1" * 9, whole + whole, b"\0" + whole):
        with pytest.raises(MalformedFileError, match="not readable as an Arrow stream"):
            _read(data)
    with pytest.raises(MalformedFileError, match=r"no column 'meta\.k'; it has .*'meta\.z'"):
        _read(arrow_bytes([{"id": "a", "t": 1.0, "meta": {"z": 1}}]))


def test_values_that_are_missing_reject_only_their_rows():
    rows = [*ROWS, {"id": "s9", "t": None, "meta": {"k": 1}}, {"id": "s9", "t": 3.0, "meta": None}]
    parsed = _read(arrow_bytes(rows))
    assert [(r.row, r.cause) for r in parsed.rejected] == [
        (9, "missing_time"),
        (10, "missing_type"),
    ]
    assert sum(map(len, parsed.sequences)) == 9
