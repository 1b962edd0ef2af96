"""The samples in docs/formats.md are read as documented."""

import re
from pathlib import Path

import mmtpp

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
FORMATS = PAGE.split("## Samples")[1].split("\n## ")[0]
COLUMNS = {"sequence": "machine", "time": "time", "type": "what", "text": "note"}


def _sample(kind: str, number: int = 0) -> str:
    """The code block of a kind of source."""
    section = re.split(r"\n\*\*`", FORMATS.split(f"**`{kind}`**")[1])[0]
    return re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)[number]


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
