"""The quality benchmark at a size that only shows that it works."""

import json
from dataclasses import replace

import pytest

from benchmarks.quality import run as quality
from benchmarks.quality.report import write_report
from benchmarks.quality.sets import DataSet
from tests.on_ray.events import publish_events


def test_a_small_quality_run_ends_in_a_table(cluster, tmp_path, monkeypatch):
    publish_events(str(tmp_path / "raw"))
    source = {"kind": "mmtpp", "uri": str(tmp_path / "raw")}
    small = DataSet("lines", {"source": source}, has_images=True, delta=2.0)
    monkeypatch.setattr(quality, "WORK", tmp_path / "work")
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"lines": small})
    path = tmp_path / "results.jsonl"
    only = ["plain", "temporal, tokens (paper)", "one target a window (paper)"]
    for _ in range(2):  # the second time nothing is left to do
        quality.run(["lines"], [0], budget=quality.SMALL, only=only, path=path)
    longer = replace(quality.SMALL, steps=(7, 4))
    with pytest.raises(ValueError, match="was done on the budget"):  # tables do not mix them
        quality.run(["lines"], [0], budget=longer, only=only, path=path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    names = [record["name"] for record in records]
    assert sorted(["marginal", "poisson", "hawkes", "last", *only]) == sorted(names)
    assert 1 == len({record["targets"] for record in records})  # all on the same events
    write_report(path, tmp_path, budget=quality.SMALL)
    text = (tmp_path / "quality.md").read_text()
    assert all(f"| {name} |" in text for name in names)
    assert (tmp_path / "positions.png").stat().st_size > 1000
