"""The samples in docs/formats.md are read as documented."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmtpp
from tests.helpers.event_files import PACKERS

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "formats.md").read_text()
FORMATS = PAGE.split("## Samples")[1].split("\n## ")[0]
COLUMNS = {"sequence": "machine", "time": "time", "type": "what", "text": "note"}


def _sample(kind: str, number: int = 0) -> str:
    """The code block of a kind of source."""
    section = re.split(r"\n\*\*`", FORMATS.split(f"**`{kind}`**")[1])[0]
    return re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)[number]


def _section(title: str) -> str:
    """The text below a title of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_tables(tmp_path: Path):
    for name, number in (("rows.csv", 0), ("lists.jsonl", 1)):
        (tmp_path / name).write_text(_sample("columns", number))
        [sequence] = mmtpp.load_sequences(
            str(tmp_path / name), columns=COLUMNS, types=("start", "alarm")
        )
        assert (sequence.sequence_id, sequence.times.tolist()) == ("pump-7", [0.0, 12.5])
        assert (
            sequence.types.tolist(),
            sequence.texts,
        ) == ([0, 1], ("valve open", "pressure low"))


def test_nested_fields(tmp_path: Path):
    (tmp_path / "nested.jsonl").write_text(_sample("columns", 2))
    columns = {"sequence": "meta.machine", "time": "meta.time"}
    columns |= {"type": "event.what", "text": "event.note"}
    [sequence] = mmtpp.load_sequences(
        str(tmp_path / "nested.jsonl"), columns=columns, types=("start", "alarm")
    )
    assert (sequence.sequence_id, sequence.times.tolist()) == ("pump-7", [0.0, 12.5])
    assert (sequence.types.tolist(), sequence.texts) == ([0, 1], ("valve open", "pressure low"))


def test_tar_shards(tmp_path: Path):
    code = re.findall(r"```python\n(.*?)```", _section("Tar shards"), re.DOTALL)[0]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    columns = {"sequence": "json.machine", "time": "json.time", "type": "json.what"}
    [sequence] = mmtpp.load_sequences(
        str(tmp_path / "events-000.tar"), columns=columns | {"image": "jpg"}, types=("alarm",)
    )
    assert sequence.times.tolist() == [0.0, 12.5, 25.0]
    assert all(image.startswith("data:") for image in sequence.images if image)
    assert None not in sequence.images


def test_files_of_days(tmp_path: Path):
    for block in re.findall(r"```\n(.*?)```", _section("A file for each day"), re.DOTALL):
        name, _, content = block.partition("\n")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    columns = {"sequence": "machine", "time": "time", "type": "what"}
    first, second = mmtpp.load_sequences(tmp_path / "days", columns=columns, types="auto")
    assert (first.sequence_id, np.diff(first.times).tolist()) == ("pump-7", [60.0])
    assert (second.sequence_id, len(second)) == ("pump-8", 1)


def test_event_logs(tmp_path: Path):
    (tmp_path / "log.xes").write_text(_sample("xes"))
    sequences = mmtpp.load_sequences(
        str(tmp_path / "log.xes"), kind="xes", columns={"text": "org:resource"}, types="auto"
    )
    [sequence] = sequences
    assert (sequence.sequence_id, sequence.times.tolist()) == ("pump-7", [0.0, 12.5])
    assert sequence.texts == ("valve open", "pressure low")
    assert [sequences.type_names[code] for code in sequence.types] == ["start", "alarm"]


def test_published_and_easytpp(tmp_path: Path):
    (tmp_path / "one.json").write_text(_sample("mmtpp"))
    [sequence] = mmtpp.load_sequences(str(tmp_path / "one.json"))
    assert (
        sequence.times.tolist(),
        sequence.types.tolist(),
        sequence.texts,
    ) == ([3.2], [4], ("take-off",))
    (tmp_path / "rows.jsonl").write_text(_sample("easytpp"))
    [sequence] = mmtpp.load_sequences(str(tmp_path / "rows.jsonl"), kind="easytpp")
    assert (sequence.times.tolist(), sequence.types.tolist()) == ([0.0, 1.3], [2, 0])


def test_packed_files(tmp_path: Path):
    content = (DOCS / "samples" / "events.csv").read_bytes()
    columns = {"sequence": "machine", "time": "time", "type": "what", "text": "note"}
    expected = mmtpp.load_sequences(str(DOCS / "samples" / "events.csv"), columns=columns)
    documented = set(re.findall(r"`events\.csv(\.\w+)`", _section("Packed files")))
    assert documented == set(PACKERS)
    for suffix in documented:
        (tmp_path / f"events.csv{suffix}").write_bytes(PACKERS[suffix](content))
        sequences = mmtpp.load_sequences(str(tmp_path / f"events.csv{suffix}"), columns=columns)
        assert [(s.sequence_id, s.times.tolist(), s.texts) for s in sequences] == [
            (s.sequence_id, s.times.tolist(), s.texts) for s in expected
        ]


def test_partitioned_folders(tmp_path: Path):
    blocks = re.findall(r"```(\w*)\n(.*?)```", _section("Partitioned folders"), re.DOTALL)
    for path, _, content in [text.partition("\n") for word, text in blocks if not word]:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(content)
    columns = {"sequence": "machine", "date": "day", "time": "clock", "type": "what"}
    sequences = mmtpp.load_sequences(
        str(tmp_path / "events"), columns=columns, types=("start", "alarm", "stop")
    )
    midnight = 1767312000.0  # date -u -d 2026-01-02 +%s
    assert [(s.sequence_id, s.times.tolist(), s.types.tolist()) for s in sequences] == [
        ("pump 8", [midnight + 30], [2]),
        ("pump-7", [midnight - 16 * 3600, midnight - 30], [0, 1]),
    ]


def test_hugging_face_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    [code] = re.findall(r"```python\n(.*?)```", _section("Hugging Face data sets"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    [sequence] = mmtpp.load_sequences("events", columns=COLUMNS, types=("start", "alarm"))
    assert (sequence.sequence_id, sequence.times.tolist()) == ("pump-7", [0.0, 12.5])
    assert (sequence.types.tolist(), sequence.texts) == ([0, 1], ("valve open", "pressure low"))
