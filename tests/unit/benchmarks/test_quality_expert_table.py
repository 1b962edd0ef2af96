"""The table of the temporal expert beside the best baselines."""

from dataclasses import replace
from pathlib import Path

from benchmarks.quality.differences import Difference
from benchmarks.quality.easytpp import DRAWS
from benchmarks.quality.expert_table import expert_table
from benchmarks.quality.kept_differences import KeptDifference, write_kept

EXPERT = "temporal expert"
KEPT = KeptDifference(
    "lines", EXPERT, "NHP", (1.0, 1.3), Difference(-0.3, 0.1, -0.5, -0.1, num_sequences=9)
)


def _record(name: str, kind: str, *, draws: float | None = None, **metrics: float) -> dict:
    named = {
        "joint/nll_nats_per_event": metrics["nll"],
        "time/rmse_s": metrics["rmse"],
        "type/accuracy": metrics["accuracy"],
    }
    if kind == "expert":
        named["time/coverage_90"] = metrics["covered"]
    if draws is not None:
        named["draws"] = draws
    return {"set": "lines", "name": name, "kind": kind, "seed": 0, "metrics": named}


def _row(tmp_path: Path, *, covered: float = 0.9, kept: KeptDifference = KEPT) -> str:
    write_kept(tmp_path / "differences.jsonl", [kept])
    records = [
        _record(EXPERT, "expert", nll=1.0, rmse=2.0, accuracy=0.5, covered=covered),
        _record("NHP", "neural", draws=float(DRAWS), nll=1.3, rmse=3.0, accuracy=0.6),
        # one sample an event: its errors are not those of the mean
        _record("THP", "neural", draws=1.0, nll=1.5, rmse=1.0, accuracy=0.9),
        _record("hawkes", "classical", nll=1.4, rmse=2.5, accuracy=0.4),
        _record("plain", "ours", nll=0.1, rmse=0.1, accuracy=0.99),
    ]
    return expert_table(records, tmp_path / "differences.jsonl").splitlines()[-1]


def test_the_best_baseline_of_each_measure_is_beside_the_expert(tmp_path: Path):
    assert _row(tmp_path) == (
        "| lines | temporal expert | 1.000 (1.300, NHP) | 3.0 | 2.000 (2.500) |  |  | "
        "**0.500 (0.600)** | 0.900 |"
    )


def test_a_difference_within_two_standard_errors_is_marked(tmp_path: Path):
    wide = replace(KEPT, difference=replace(KEPT.difference, standard_error=0.2))
    assert "| **1.000 (1.300, NHP)** | 1.5 |" in _row(tmp_path, kept=wide)


def test_a_difference_of_other_trials_does_not_count(tmp_path: Path):
    old = replace(KEPT, mean_nll=(1.1, 1.3))
    assert "| 1.000 (1.300, NHP) |  |" in _row(tmp_path, kept=old)


def test_intervals_that_cover_too_much_are_marked(tmp_path: Path):
    assert _row(tmp_path, covered=0.95).endswith("| **0.950** |")
