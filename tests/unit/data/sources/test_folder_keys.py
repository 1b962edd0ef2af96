"""Columns in the names of folders: values, conflicts with the columns of a file, other folders."""

import json
from pathlib import Path

import pandas as pd
import pytest

from mmtpp.cli.main import main
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.folder_keys import folder_keys, list_folder_keys
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes
from tests.helpers.tables import csv_bytes, json_lines, parquet_bytes

COLUMNS = Columns(time="t", sequence="id", type="kind", split="part")
FORMS = {"csv": csv_bytes, "jsonl": json_lines, "parquet": parquet_bytes}


def _read(path: str, data: bytes, columns: Columns = COLUMNS) -> ParsedFile:
    reader = build_reader("columns", columns=columns)
    return read_file(reader, path, data, types=TypeCodes(("on", "off")))


@pytest.mark.parametrize("form", FORMS)
def test_keys_are_columns_of_every_row(form: str):
    data = FORMS[form]([{"t": 2.5, "kind": "off"}, {"t": 1.0, "kind": "on"}])
    parsed = _read(f"x/part=dev/other=7/id=a%2Fb%20c/f.{form}", data)
    [sequence] = parsed.sequences
    assert (sequence.sequence_id, sequence.times.tolist()) == ("a/b c", [1.0, 2.5])
    assert (parsed.splits, sequence.types.tolist()) == (("validation",), [0, 1])


@pytest.mark.parametrize("form", FORMS)
def test_a_column_of_both_file_and_folder_is_an_error(form: str):
    data = FORMS[form]([{"t": 2.5, "kind": "off", "id": "a", "part": "train", "z": 1}])
    with pytest.raises(MalformedFileError, match=r"both .* have the column 'id'; rename"):
        _read(f"id=a/f.{form}", data)
    assert _read(f"z=2/f.{form}", data).sequences[0].sequence_id == "a"  # z is not mapped


def test_a_missing_value_and_an_invalid_escape_reject_the_rows():
    data = csv_bytes([{"t": 2.5, "kind": "off", "part": "dev"}])
    [lost] = _read("id=__HIVE_DEFAULT_PARTITION__/f.csv", data).rejected
    assert (lost.cause, "'id', the sequence, is empty" in lost.detail) == ("malformed_record", True)
    [lost] = _read("id=%FF/f.csv", data).rejected
    assert lost.cause == "invalid_sequence_id"


def test_names_of_folders():
    assert folder_keys("a=1/=2/b/c=/d=x=y/e=5.csv") == {"a": "1", "c": "", "d": "x=y"}
    with pytest.raises(MalformedFileError, match="two folders give the column 'a'"):
        folder_keys("a=1/a=2/f.csv")
    paths = ["day=1/h=1/a.csv", "day=1/h=1/b.csv", "day=2/h=1/a.csv", "x=3.csv"]
    assert list_folder_keys(paths) == {"day": 2, "h": 1}


def test_folders_that_pandas_writes(tmp_path: Path, capsys):
    frame = pd.DataFrame(
        {"id": ["b c", "b c", "a"], "t": [3.0, 4.0, 5.0], "kind": ["on", "off", "on"]}
    )
    frame.to_parquet(tmp_path / "raw", partition_cols=["id"])
    report = tmp_path / "report.json"
    settings = [f"--set=source.columns.{key}" for key in ("time=t", "sequence=id", "type=kind")]
    arguments = ["inspect", str(tmp_path / "raw"), "--kind", "columns", "--json", str(report)]
    assert main([*arguments, *settings]) == 0
    tree = json.loads(report.read_text())
    assert (tree["num_sequences"], tree["folder_columns"]) == (2, {"id": 2})
    assert tree["interval"][-1] == 1.0
    assert "columns in the names of folders: id (2 values)" in capsys.readouterr().out
