"""The tutorial's cells run one after the other, and the model learns what they say it does."""

import json
from pathlib import Path

import matplotlib as mpl

ROOT = Path(__file__).parents[2]


def test_the_tutorial_runs(cluster, capsys):
    cells = json.loads((ROOT / "tutorial.ipynb").read_text())["cells"]
    mpl.use("agg")
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # kept out of the repository
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    assert "20 sequences, 480 events" in capsys.readouterr().out
    forecast = names["forecast"]
    assert forecast.type == "stop"
    assert forecast.type_probabilities["stop"] > 0.8
    assert 1.5 < forecast.median < 2.5
    assert len(forecast.futures) == 3
