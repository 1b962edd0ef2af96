"""An event store in the formats of other projects, read by their loaders and by this project."""

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

import mmtpp
from mmtpp.cli.main import main
from mmtpp.core.errors import DataError
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.totals import Totals
from mmtpp.exchange.convert import COLUMNS, to_datasets
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.paths import join
from tests.helpers.steps import SETTINGS, encode_shard


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Three sequences in the training split, with two images and texts that are not ASCII."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, color in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        Image.new("RGB", (56, 56), color).save(raw / f"{name}.png")
    for place, name in enumerate(("one", "two", "three")):
        events = [
            {
                "time": 3.0 + place + 2.0 * row,
                "text": f"{name} ü{row}",
                "image_path": ["a.png", None, "b.png"][row % 3],
                "TPP_attribute": {"event_type": (row + place) % 3, "time_since_last_event": 2.0},
            }
            for row in range(4)
        ]
        (raw / f"{name}.json").write_text(json.dumps(events))
    uri = str(tmp_path / "store")
    tokenizer = train_tokenizer(["one two three"], size=300)
    paths = sorted(path.name for path in raw.glob("*.json"))
    counts = encode_shard(join(uri, "data-x"), paths, tokenizer=tokenizer, source_uri=str(raw))
    totals = Totals()
    totals.add(counts)
    settings = EncodeSettings(**{**SETTINGS, "source_uri": str(raw)})
    totals.build_manifest(settings, "request", "data-x", Vocabulary(tokenizer).hash).save(uri)
    return uri


def test_hugging_face_datasets_loads_the_folder(store: str, tmp_path: Path):
    folder = tmp_path / "out"
    assert main(["convert", store, str(folder), "--to", "datasets"]) == 0
    dataset = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    rows = {row["sequence_id"]: row for row in dataset}  # pyright: ignore[reportCallIssue]
    assert set(rows) == {"one", "two", "three"}
    assert rows["two"]["times"] == [4.0, 6.0, 8.0, 10.0]  # pyright: ignore[reportCallIssue]
    assert rows["two"]["types"] == [1, 2, 0, 1]  # pyright: ignore[reportCallIssue]
    assert rows["two"]["texts"] == ["two ü0", "two ü1", "two ü2", "two ü3"]  # pyright: ignore[reportCallIssue]
    red, none, blue, red_again = rows["one"]["images"]  # pyright: ignore[reportCallIssue]
    assert none is None
    assert red == red_again
    assert Image.open(folder / blue).getpixel((5, 5)) == (0, 0, 250)
    assert len(list((folder / "images").rglob("*.png"))) == 2  # each image is written once
    # the folder read back holds the same sequences
    data = mmtpp.load_sequences(str(folder), columns=COLUMNS)
    originals = {sequence.sequence_id: sequence for sequence in mmtpp.load_sequences(store)}
    for sequence in data:
        original = originals.pop(sequence.sequence_id)
        assert original.times.tolist() == sequence.times.tolist()
        assert original.types.tolist() == sequence.types.tolist()
        assert original.texts == sequence.texts
        for stored, exported in zip(original.images, sequence.images, strict=True):
            assert (stored is None) == (exported is None)
            if stored and exported:
                pair = [mmtpp.load_image(image, image_px=56) for image in (stored, exported)]
                assert (pair[0] == pair[1]).all()
    assert not originals
    with pytest.raises(DataError, match="not empty"):
        to_datasets(store, folder)


def test_the_json_has_the_schema_of_easytpp(store: str, tmp_path: Path):
    """``datasets`` parses the rows, and this project's reader returns the same times."""
    folder = tmp_path / "out"
    assert main(["convert", store, str(folder), "--to", "easytpp"]) == 0
    rows = datasets.load_dataset(
        "json", data_files={"train": str(folder / "train.json")}, cache_dir=str(tmp_path / "cache")
    )["train"]
    assert rows["seq_idx"] == [0, 1, 2]
    assert rows["time_since_start"] == [[0.0, 2.0, 4.0, 6.0]] * 3
    assert rows["time_since_last_event"] == [[0.0, 2.0, 2.0, 2.0]] * 3
    assert set(rows["seq_len"]) == {4}
    assert set(rows["dim_process"]) == {3}
    assert json.loads((folder / "dev.json").read_text()) == []
    read_back = mmtpp.load_sequences(str(folder / "train.json"), kind="easytpp")
    types = sorted(sequence.types.tolist() for sequence in mmtpp.load_sequences(store))
    assert sorted(sequence.types.tolist() for sequence in read_back) == types
    assert read_back[0].times.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_the_loader_of_easytpp_reads_the_json(store: str, tmp_path: Path, monkeypatch):
    """With EasyTPP, if the extra ``quality`` is installed."""
    loading = pytest.importorskip("easy_tpp.preprocess", reason="pip install 'mmtpp[quality]'")
    from easy_tpp.config_factory import DataConfig  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "out"
    assert main(["convert", store, str(folder), "--to", "easytpp"]) == 0
    config = DataConfig.parse_from_yaml_config(
        {
            "data_format": "json",
            "train_dir": str(folder / "train.json"),
            "valid_dir": str(folder / "dev.json"),
            "test_dir": str(folder / "test.json"),
            "data_specs": {"num_event_types": 3, "pad_token_id": 3, "padding_side": "right"},
        }
    )
    loader = loading.TPPDataLoader(config, backend="torch", batch_size=3).train_loader()
    (batch,) = list(loader)
    times, intervals, types = (batch[key] for key in ("time_seqs", "time_delta_seqs", "type_seqs"))
    assert times.tolist() == [[0.0, 2.0, 4.0, 6.0]] * 3
    assert intervals.tolist() == [[0.0, 2.0, 2.0, 2.0]] * 3
    assert sorted(types.tolist()) == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]
