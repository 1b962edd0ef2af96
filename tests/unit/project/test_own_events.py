"""The sample table of "Your own events": the pages describe it, and the API reads it."""

import re
import shutil
from pathlib import Path

import pytest

import mmtpp

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "docs" / "samples" / "events.csv"


def test_the_page_shows_the_sample():
    page = (ROOT / "docs" / "own-events.md").read_text()
    [rows] = re.findall(r"^```\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert SAMPLE.read_text().startswith(rows)
    columns = {"time": "time", "sequence": "machine", "type": "what", "text": "note"}
    sequences = mmtpp.load_sequences(SAMPLE, columns=columns)
    [(num_events, num_sequences)] = re.findall(r"(\d+) invented events of (\d+) pumps", page)
    assert sum(len(sequence.times) for sequence in sequences) == int(num_events)
    assert len(sequences) == int(num_sequences)


def test_the_python_page_reads_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The lines of the example that need no trained model run as they stand."""
    page = (ROOT / "docs" / "python.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    before_model, _, _ = code.partition("\n# written by jobs/finetune.py")
    shutil.copy(SAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(before_model, names)  # noqa: S102
    assert len(names["similar"]) == len(names["sequences"][0].times)
