"""Paired differences between models, by hand-computed examples."""

import math
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.quality.difference_table import best_baseline, difference_table
from benchmarks.quality.differences import (
    SUMS_SCHEMA,
    mean_over_seeds,
    paired_difference,
    sequence_sums,
    table_path,
    write_sums,
)
from benchmarks.quality.neural import MAX_EVENTS, _by_sequence
from benchmarks.quality.results import Results


def _sums(**nll: tuple[float, float]) -> pa.Table:
    """Table of (number of events, sum of losses) by sequence."""
    rows = [
        {"sequence_id": name, "events": events, "nll": loss} for name, (events, loss) in nll.items()
    ]
    return pa.Table.from_pylist(rows, schema=SUMS_SCHEMA)


def test_a_difference_by_hand():
    """Two sequences of 1 and 3 events, with differences of the sums of 1 and -1 nats.

    A resample is a twice (1 / 1), b twice (-1 / 3), or both (0), with probabilities 1/4, 1/4 and
    1/2. Its mean is 1/6, its variance (1 + 1/9) / 4 - 1/36 = 1/4, so the standard error is 1/2.
    """
    difference = paired_difference(_sums(b=(3, 4.0), a=(1, 3.0)), _sums(a=(1, 2.0), b=(3, 5.0)))
    assert difference.value == 0.0
    assert difference.standard_error == pytest.approx(0.5, abs=0.01)
    assert (difference.low, difference.high) == pytest.approx((-1 / 3, 1.0))
    assert difference.num_sequences == 2


def test_a_constant_difference_has_no_error():
    """Hard and easy sequences, of which the first model is better by 0.5 nats per event in both."""
    difference = paired_difference(_sums(a=(2, 99.0), b=(4, 8.0)), _sums(a=(2, 100.0), b=(4, 10.0)))
    assert difference.value == pytest.approx(-0.5)
    assert difference.standard_error == pytest.approx(0.0, abs=1e-12)


def test_different_targets_are_refused():
    with pytest.raises(ValueError, match="1 sequences with 2 events, and 1 with 3"):
        paired_difference(_sums(a=(2, 1.0)), _sums(a=(3, 1.0)))
    with pytest.raises(ValueError, match="different targets"):
        mean_over_seeds([_sums(a=(2, 1.0)), _sums(b=(2, 1.0))])


def test_seeds_are_averaged_by_sequence():
    mean = mean_over_seeds([_sums(a=(2, 1.0), b=(1, 4.0)), _sums(b=(1, 2.0), a=(2, 2.0))])
    assert mean.to_pylist() == _sums(a=(2, 1.5), b=(1, 3.0)).to_pylist()


def test_sums_of_targets_leave_out_events_without_a_density():
    targets = pa.table(
        {
            "sequence_id": ["b", "a", "a", "a"],
            "interval": [1.0, 2.0, 0.0, 1.0],
            "type": [0, 1, 0, 1],
            "time_nll": [0.5, 1.0, float("nan"), 2.0],
            "outside": [0.0] * 4,
            **{f"quantile_{level}": [1.0] * 4 for level in ("05", "25", "75", "95")},
            "joint_type_nll": [0.25, 0.5, 9.0, 0.5],
        }
    )
    expected = _sums(a=(2, 4.0), b=(1, 0.75))
    assert sequence_sums(targets).to_pylist() == expected.to_pylist()
    assert sequence_sums(targets.drop_columns(["joint_type_nll"])) is None


def test_losses_of_parts_become_sums_of_sequences():
    """EasyTPP reads a long sequence in parts; its times are divided by the mean interval."""
    lone = [[5.0], [0]]
    short = [[0.0, 1.0, 1.0], [0, 1, 0]]  # a simultaneous event costs log 2 more
    long = [[float(second) for second in range(MAX_EVENTS + 3)], [0] * (MAX_EVENTS + 3)]
    losses = [3.0, 10.0, 1.0]  # one part of the short sequence, two of the long one
    num_targets = MAX_EVENTS + 2
    assert _by_sequence([lone, short, long], losses, scale=math.e) == [
        [0, 0.0],
        [2, pytest.approx(3.0 + 2 + math.log(2))],
        [num_targets, pytest.approx(11.0 + num_targets)],
    ]


def _record(kind: str, name: str, nll: float) -> dict:
    metrics = {"joint/nll_nats_per_event": nll}
    return {"set": "s", "kind": kind, "name": name, "seed": 0, "metrics": metrics}


def test_the_report_compares_ours_with_the_best_baseline(tmp_path: Path):
    sums = tmp_path / "sums"
    results = Results(tmp_path / "results.jsonl", sums)
    losses = {"temporal expert": (1.0, 2.0), "hawkes": (1.5, 2.5), "poisson": (3.0, 3.0)}
    for name, (a, b) in losses.items():
        kind = "expert" if name == "temporal expert" else "classical"
        table = _sums(a=(1, a), b=(1, b))
        results.add([{**_record(kind, name, (a + b) / 2), "per_sequence": table}])
    assert best_baseline(results.records) == "hawkes"
    kept = tmp_path / "differences.jsonl"

    def last_row(records: list[dict], kept: Path = kept) -> str:
        return difference_table(records, sums, kept).splitlines()[-1]

    compared = "| s | temporal expert | hawkes | -0.500 | 0.000 | -0.500 to -0.500 | 2 |"
    assert last_row(results.records) == compared
    # the sums of another run of the trial do not count
    write_sums(_sums(a=(1, 9.0), b=(1, 9.0)), table_path(sums, results.records[1]))
    not_compared = "| s | temporal expert | hawkes | -0.500 | | |  |"
    assert last_row(results.records, tmp_path / "none.jsonl") == not_compared
    # the difference that was computed before counts, until a model has another mean
    assert last_row(results.records) == compared
    other = [_record("expert", "temporal expert", 1.6), _record("classical", "hawkes", 2.0)]
    assert last_row(other) == "| s | temporal expert | hawkes | -0.400 | | |  |"
