"""The cells of the tutorial run in order, and the model learns to forecast its events."""

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
            assert cell["outputs"] == []  # outputs are not committed
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    assert "20 sequences, 480 events" in capsys.readouterr().out
    forecast = names["forecast"]
    assert forecast.type == "stop"
    assert forecast.type_probabilities["stop"] > 0.8
    assert 1.5 < forecast.median < 2.5
    assert len(forecast.futures) == 3
