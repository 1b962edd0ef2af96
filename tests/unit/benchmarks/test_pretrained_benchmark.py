"""The table and the events of the benchmark of pretrained weights."""

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.pretrained.event_sets import write_utterances as write_share
from benchmarks.pretrained.report import build_table
from benchmarks.pretrained.trial import TINY, likelihoods
from mmtpp.core.split import split_from_key
from tests.helpers.utterances import write_utterances


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_utterances(tmp_path / "utterances.csv.gz")


def test_a_share_of_the_sequences_keeps_all_that_are_tested(data: Path, tmp_path: Path):
    kept = {}
    for fraction in (0.1, 0.5, 1.0):
        folder = tmp_path / str(fraction)
        write_share(data, folder, fraction)
        rows = (folder / "utterances.csv").read_text().splitlines()[1:]
        kept[fraction] = {row.split(",")[0] for row in rows}
    assert kept[0.1] < kept[0.5] < kept[1.0] == {f"p{part}" for part in range(60)}
    tested = {
        name
        for name in kept[1.0]
        if split_from_key(name, validation_fraction=0.1, test_fraction=0.15) == "test"
    }
    assert tested
    assert tested < kept[0.1]


def test_likelihoods_by_hand():
    targets = pa.table(
        {
            "sequence_id": ["a", "a"],
            "position": pa.array([1, 2], pa.int32()),
            "text_nll": [6.0, None],
            "text_tokens": pa.array([3, None], pa.int32()),
            "time_nll": [1.0, 3.0],
            "joint_type_nll": [0.5, 0.5],
        }
    )
    assert likelihoods(targets, {("a", 1): 12, ("a", 2): 0}) == {
        "text_token": 2.0,
        "text_byte": 0.5,
        "text": 6.0,
        "time": 2.0,
        "type": 0.5,
        "event": 8.5,
    }


def test_the_table_shows_the_seeds():
    record = {"model": TINY, "set": "transcripts", "fraction": 0.01, "steps": 4, "cpu_s": 2.0}
    names = ("text_token", "text_byte", "text", "time", "type", "event")
    records = [
        {**record, "seed": seed, "metrics": dict.fromkeys(names, 1.0 + seed)} for seed in (0, 1)
    ]
    row = build_table(records).splitlines()[-1]
    assert row == f"| 1 % | tiny | 2 | 4 | 2 | {' | '.join(['1.500 ± 0.500'] * 6)} |  |  |  |  |"
