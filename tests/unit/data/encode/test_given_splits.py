"""Given splits, from file names and from columns: they are kept, and never guessed."""

import json
import logging
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import DataError
from mmtpp.core.split import split_from_path, split_from_value
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.given_splits import (
    check_given_splits,
    unused_splits_warning,
    warn_unused_splits,
)
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.data.store.stored_sequence import StoredSequence
from mmtpp.inspect.dataset import load
from mmtpp.model.tokens.vocabulary import train_tokenizer
from tests.helpers.steps import SETTINGS, encode_shard
from tests.helpers.tables import write_rows

TOKENIZER = train_tokenizer(["some words of text"], size=300)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.pkl", "train"),
        ("dev.pkl", "validation"),
        ("test.json", "test"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "validation"),
        ("easytpp_taxi/valid.jsonl.gz", "validation"),
        ("Test/7.csv", "test"),
        ("fold0/VAL/a.csv", "validation"),
        ("eval_1.jsonl", "validation"),
        ("amazon_train.json", "train"),
        ("test/part-0.csv", "test"),
        ("train/train.csv", "train"),
        ("trains.csv", ""),  # another word
        ("events.csv", ""),
        ("latest.csv", ""),
        ("train/test.csv", ""),  # names disagree
        ("train_and_test.csv", ""),
        ("te/tr.csv", ""),  # too short to mean anything in a name
    ],
)
def test_splits_of_files(path: str, split: str):
    assert split_from_path(path) == split


def test_splits_of_values():
    named = {
        "train": "train",
        " Training ": "train",
        "TR": "train",
        "dev": "validation",
        "val": "validation",
        "Validation": "validation",
        "test": "test",
        "te": "test",
        "other": "",
        "": "",
        1: "",
        None: "",
    }
    assert [split_from_value(value) for value in named] == list(named.values())


def _store(folder: Path, source: Path, **changes: object) -> dict[str, StoredSequence]:
    """Encode every file of a folder, and read the store back by name."""
    paths = sorted(
        path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()
    )
    encode_shard(str(folder), paths, tokenizer=TOKENIZER, source_uri=str(source), **changes)
    reader = StoreReader(StoreSettings(str(folder), "x", 56))
    return {stored.sequence_id: stored for stored in reader.sequences(reader.files())}


def _easytpp_rows(part: int, count: int) -> list[dict]:
    """Sequences whose ids count from 0 in every file."""
    return [
        {
            "seq_idx": index,
            "dim_process": 3,
            "time_since_start": [0.0, 1.0 + part, 4.0 + index],
            "time_since_last_event": [0.0, 1.0 + part, 3.0 + index - part],
            "type_event": [0, 1, part],
        }
        for index in range(count)
    ]


@pytest.fixture
def easytpp(tmp_path: Path) -> Path:
    raw = tmp_path / "easytpp"
    raw.mkdir()
    for part, (name, count) in enumerate({"train": 5, "dev": 2, "test": 3}.items()):
        (raw / f"{name}.json").write_text(json.dumps(_easytpp_rows(part, count)))
    return raw


def _counts(stored: dict[str, StoredSequence]) -> dict[str, int]:
    splits = [sequence.split for sequence in stored.values()]
    return {split: splits.count(split) for split in sorted(set(splits))}


def test_the_three_files_of_easytpp_keep_their_splits(easytpp: Path, tmp_path: Path):
    stored = _store(tmp_path / "s", easytpp, source_kind="easytpp", split_by="given")
    assert _counts(stored) == {"test": 3, "train": 5, "validation": 2}
    for sequence in stored.values():
        assert sequence.sequence_id.startswith(f"{sequence.split}/")
        marker = {"train": 0, "validation": 1, "test": 2}[sequence.split]
        assert sequence.events.types.tolist() == [0, 1, marker]


def test_equal_ids_in_different_splits_are_different_sequences(easytpp: Path, tmp_path: Path):
    """The same rows as a table, where ``seq_idx`` is the id."""
    columns = Columns(time="time_since_start", type="type_event", sequence="seq_idx")
    stored = _store(
        tmp_path / "s", easytpp, source_kind="columns", columns=columns, split_by="given"
    )
    assert _counts(stored) == {"test": 3, "train": 5, "validation": 2}
    assert {"train/0", "validation/0", "test/0"} <= set(stored)
    assert stored["test/0"].times.tolist() == [0.0, 3.0, 4.0]


def test_keys_of_a_pickle_name_the_splits(tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    event = {"time_since_start": 1.0, "time_since_last_event": 0.0, "type_event": 0}
    tree = {"dim_process": 1, "train": [[event]] * 3, "dev": [[event]], "test": [[event]] * 2}
    (raw / "all.pkl").write_bytes(pickle.dumps(tree))
    stored = _store(tmp_path / "s", raw, source_kind="easytpp", split_by="given")
    assert _counts(stored) == {"test": 2, "train": 3, "validation": 1}
    # with split_by = hash, the sequence ids do not contain the split
    hashed = _store(tmp_path / "h", raw, source_kind="easytpp")
    assert {"all#train-0", "all#dev-0", "all#test-1"} <= set(hashed)


def test_hugging_face_shards_of_parquet(tmp_path: Path):
    raw = tmp_path / "raw" / "data"
    raw.mkdir(parents=True)
    for name, rows in {
        "train-00000-of-00002": 2,
        "train-00001-of-00002": 2,
        "validation-00000-of-00001": 1,
        "test-00000-of-00001": 3,
    }.items():
        pq.write_table(pa.Table.from_pylist(_easytpp_rows(0, rows)), raw / f"{name}.parquet")
    stored = _store(tmp_path / "s", tmp_path / "raw", source_kind="easytpp", split_by="given")
    assert _counts(stored) == {"test": 3, "train": 4, "validation": 1}


def test_a_column_names_the_split_of_every_record(tmp_path: Path):
    rows: list[dict[str, object]] = [
        {"who": who, "t": time, "fold": fold}
        for who, fold in (("a", "Train"), ("b", "dev"), ("c", "test"), ("a", "TEST"))
        for time in (1, 2, 3)
    ]
    rows.append({"who": "d", "t": 5, "fold": "later"})
    rows.append({"who": "d", "t": 6, "fold": ""})
    write_rows(tmp_path / "raw" / "events.csv", rows)
    columns = Columns(time="t", sequence="who", split="fold")
    changes = {"source_kind": "columns", "columns": columns, "split_by": "given"}
    counts = encode_shard(
        str(tmp_path / "s"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(tmp_path / "raw"),
        **changes,
    )
    assert counts["rejected"] == {"unknown_split": 2}
    assert counts["sequences_by_split"] == {"train": 1, "validation": 1, "test": 2}
    assert counts["events_by_split"] == {"train": 3, "validation": 3, "test": 6}
    assert set(counts["sequence_ids"]) == {"train/a", "validation/b", "test/c", "test/a"}


@pytest.mark.parametrize("name", ["events.csv", "train/test.csv"])
def test_a_file_without_a_split_is_named(tmp_path: Path, name: str):
    rows: list[dict[str, object]] = [{"t": 1}, {"t": 2}]
    write_rows(tmp_path / "raw" / name, rows)
    columns = Columns(time="t")
    settings = EncodeSettings(
        **{
            **SETTINGS,
            "source_uri": str(tmp_path / "raw"),
            "source_kind": "columns",
            "columns": columns,
            "split_by": "given",
        }
    )
    with pytest.raises(
        DataError, match=rf"{name}: the split of the file is unknown[\s\S]*split.by = given"
    ):
        _store(
            tmp_path / "s",
            tmp_path / "raw",
            source_kind="columns",
            columns=columns,
            split_by="given",
        )
    with pytest.raises(DataError, match=f"{name}: the split"):  # before any work
        check_given_splits(settings, [name])
    check_given_splits(replace(settings, columns=replace(columns, split="fold")), [name])
    check_given_splits(replace(settings, split_by="hash"), [name])


def test_unused_splits_cause_a_warning(easytpp: Path, caplog: pytest.LogCaptureFixture):
    settings = EncodeSettings(
        **{**SETTINGS, "source_uri": str(easytpp), "source_kind": "easytpp", "test_fraction": 0.1}
    )
    with caplog.at_level(logging.WARNING):
        check_given_splits(settings, ["dev.json", "test.json", "train.json"])
    assert "train: train.json; validation: dev.json; test: test.json" in caplog.text
    assert "set split.by = given" in caplog.text
    tree = {"source": {"kind": "easytpp", "uri": str(easytpp)}}
    config = config_from_tree(tree)
    hints = load(config.source, config.split, config.model, max_files=0).hints
    assert any("split.by = given" in hint for hint in hints)
    given = config_from_tree(tree | {"split": {"by": "given"}}).split
    hints = load(config.source, given, config.model, max_files=0).hints
    assert not any("split.by" in hint for hint in hints)
    assert not unused_splits_warning(["train.json", "events.json"], by="hash")
    assert "cuts each of their sequences" in unused_splits_warning(
        ["train.json", "dev.json"], by="time"
    )
    with caplog.at_level(logging.WARNING):
        warn_unused_splits(settings, Counter({"train": 4, "test": 2}))
    assert "train: 4 sequences; test: 2 sequences" in caplog.text
