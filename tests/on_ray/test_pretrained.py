"""The benchmark of pretrained weights, small: a tiny Llama, a few events, two steps."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.pretrained import run as benchmark
from benchmarks.pretrained.report import write_report
from benchmarks.pretrained.trial import ADAPTED, EXPERT, NAMED, RANDOM, TINY, TINY_LONGER
from mmtpp.exchange.gguf_import import import_gguf
from tests.helpers.gguf_files import write_gguf
from tests.helpers.utterances import write_utterances

RATES = benchmark.SMALL_RATES


@pytest.fixture(autouse=True)
def _restored_environment() -> Iterator[None]:
    """Remove the variables that the benchmark sets for DeepSpeed in its own process."""
    with patch.dict(os.environ):
        yield


def test_finished_trials_are_kept(cluster, tmp_path: Path):
    data = write_utterances(tmp_path / "utterances.csv.gz")
    base, path = tmp_path / "base", tmp_path / "results.jsonl"
    write_gguf(tmp_path / "tiny.gguf")
    import_gguf(str(tmp_path / "tiny.gguf"), str(base), precision="bfloat16")
    work, budget = tmp_path / "work", benchmark.SMALL
    benchmark.run(data, base, work, budget=budget, rates=RATES, seeds=[0], path=path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["model"], record["steps"] > 0) for record in records] == [
        (ADAPTED, False),
        (ADAPTED, True),
        (RANDOM, True),
        (TINY, True),
        (EXPERT, True),
        (NAMED, True),
        (TINY_LONGER, True),
    ]
    assert all(np.isfinite(list(record["metrics"].values())).all() for record in records)
    assert all(record["targets"] == records[0]["targets"] > 0 for record in records)
    with_extras = [record["model"] for record in records if "mixed_time" in record["metrics"]]
    assert with_extras == [ADAPTED, TINY_LONGER]
    assert all(
        0 <= record["metrics"]["chrf"] <= 1 and record["metrics"]["written"] > 0
        for record in records
        if record["model"] in with_extras and record["steps"]
    )
    written = path.read_text()
    benchmark.run(data, base, work, budget=budget, rates=RATES, seeds=[0], path=path)
    assert path.read_text() == written
    write_report(records, tmp_path)
    assert f"| 100 % | {TINY_LONGER} | 1 |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 1000
