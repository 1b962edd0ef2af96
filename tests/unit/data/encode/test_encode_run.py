"""Which steps encode a source, and into which data folder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mmtpp.data.encode import encode
from mmtpp.data.encode.encode_pipeline import RepeatedIdsError
from mmtpp.data.encode.encode_settings import AUTO, SEQUENCE
from mmtpp.data.encode.shards import FileShard
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE

SHARDS = [FileShard(0, ["a.json"], 1)]


class _Pipeline:
    """Records its steps; ids repeat in the files if it is told so."""

    def __init__(self, folder: str, partitioning: str, *, ids_repeat: bool) -> None:
        self.settings = SimpleNamespace(partitioning=partitioning)
        self.folder, self.ids_repeat = folder, ids_repeat
        self.steps: list[tuple[str, str]] = []

    def in_folder(self, folder: str) -> "_Pipeline":
        other = _Pipeline(folder, self.settings.partitioning, ids_repeat=False)
        other.steps = self.steps
        return other

    def run(self, _shards: object, *, may_join: bool) -> str:
        self.steps.append(("files", self.folder))
        if self.ids_repeat:
            raise RepeatedIdsError("sequence ids repeat")
        return "totals"

    def run_joined(self, _shards: object, _reusable: object) -> str:
        self.steps.append(("joined", self.folder))
        return "totals"


@pytest.mark.parametrize(
    ("partitioning", "may_join", "ids_repeat", "has_pieces", "steps"),
    [
        ("file", False, False, False, ["files first"]),
        (AUTO, True, False, False, ["files first"]),
        (AUTO, True, True, False, ["files first", "joined second"]),
        (AUTO, True, True, True, ["joined second"]),
        (SEQUENCE, False, True, False, ["joined first"]),
        (SEQUENCE, False, True, True, ["joined first"]),
    ],
)
def test_files_are_joined_where_ids_repeat(
    partitioning: str,
    may_join: bool,
    ids_repeat: bool,
    has_pieces: bool,
    steps: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pieces = SimpleNamespace(shards={0: 0}) if has_pieces else None
    saved: list[str] = []
    monkeypatch.setattr(encode.ReusablePieces, "find", lambda *_: pieces)
    monkeypatch.setattr(encode, "_copy_shards", lambda *_: 0)
    monkeypatch.setattr(encode, "num_partitions_of", lambda *_: 1)
    inputs = SimpleNamespace(save=saved.append)
    monkeypatch.setattr(encode, "replace", lambda *_, **__: inputs)
    vocabulary = cast(Any, SimpleNamespace(hash="v", tokenizer_json="{}"))
    folders = encode._DataFolders(str(tmp_path), "request", vocabulary)
    first, second = folders.create(), folders.create(attempt="joined")
    (Path(second) / TOKENIZER_FILE).unlink()  # the folder must be created by the run itself
    pipeline = _Pipeline(first, partitioning, ids_repeat=ids_repeat)
    encoded = encode._run(
        cast(Any, pipeline), SHARDS, cast(Any, inputs), folders, "old", may_join=may_join
    )
    names = {first: "first", second: "second"}
    assert [f"{step} {names[folder]}" for step, folder in pipeline.steps] == steps
    last_folder = pipeline.steps[-1][1]
    assert encoded.folder == last_folder
    assert saved == [last_folder]  # a later call reuses what the finished folder has
    assert encoded.num_copied == int(has_pieces)
    assert (Path(last_folder) / TOKENIZER_FILE).exists()


def test_repeated_ids_are_an_error_where_files_are_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "_copy_shards", lambda *_: 0)
    vocabulary = cast(Any, SimpleNamespace(hash="v", tokenizer_json="{}"))
    folders = encode._DataFolders(str(tmp_path), "request", vocabulary)
    pipeline = cast(Any, _Pipeline(folders.create(), "file", ids_repeat=True))
    with pytest.raises(RepeatedIdsError):
        encode._run(pipeline, SHARDS, cast(Any, None), folders, "", may_join=False)
