"""The tables of the quality benchmark: repeated trials, and errors of one random draw."""

import json
from pathlib import Path

import pytest

from benchmarks.quality.easytpp import DRAWS
from benchmarks.quality.report import _table, read_records
from benchmarks.quality.results import BUDGET, Results, Trial


def _record(name: str, rmse: float, draws: float | None, kind: str = "neural") -> dict:
    metrics = {"time/rmse_s": rmse, "type/accuracy": 0.5, "joint/nll_nats_per_event": 1.0}
    if draws is not None:
        metrics |= {"draws": draws, "epochs": 12.0}
    budget = [BUDGET.neural_s] if kind == "neural" else None
    return {
        "set": "lines",
        "name": name,
        "seed": 0,
        "kind": kind,
        "budget": budget,
        "metrics": metrics,
        "targets": 10,
    }


def _write(path: Path, records: list[dict]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_a_trial_of_one_draw_is_repeated_and_its_last_line_counts(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    trial = Trial("lines", "neural", "NHP", 0)
    for draws in (None, 1.0):
        _write(path, [_record("NHP", 3.013, draws)])
        assert not Results(path, tmp_path).has(trial, BUDGET)
    _write(path, [_record("NHP", 3.013, 1.0), _record("NHP", 1.764, float(DRAWS))])
    assert Results(path, tmp_path).has(trial, BUDGET)
    [kept] = read_records(path)
    assert kept["metrics"]["time/rmse_s"] == 1.764


def test_older_names_of_positions_are_read_as_those_of_today(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    record = _record("NHP", 3.013, 1.0)
    record["metrics"] = {"time/rmse_s@1-50": 1.0, "time/rmse_s/at_over_500": 2.0}
    _write(path, [record])
    [kept] = read_records(path)
    assert kept["metrics"] == {"time/rmse_s/at_1-49": 1.0, "time/rmse_s/at_500_up": 2.0}


def test_errors_of_one_draw_are_marked():
    records = [
        _record("NHP", 3.013, 1.0),
        _record("IntensityFree", 2.5, 1.0),
        _record("S2P2", 1.764, float(DRAWS)),
        _record("hawkes", 1.8, None, kind="classical"),
    ]
    rows = {line.split(" | ")[0]: line for line in _table("lines", records).splitlines()}
    assert rows["| NHP"] == "| NHP | 1 |  | 12 | 1.000 | 3.013 † | 0.500 † |"
    # IntensityFree predicts types from the history, without a draw
    assert rows["| IntensityFree"] == "| IntensityFree | 1 |  | 12 | 1.000 | 2.500 † | 0.500 |"
    assert rows["| S2P2"] == "| S2P2 | 1 |  | 12 | 1.000 | 1.764 | 0.500 |"
    assert rows["| hawkes"] == "| hawkes | 1 |  |  | 1.000 | 1.800 | 0.500 |"
    text = _table("lines", records)
    assert f"the mean of {DRAWS} samples" in text
    assert "one random sample" in text
    assert "one random sample" not in _table("lines", records[2:])


def test_the_committed_results_record_their_number_of_draws():
    path = Path(__file__).parents[3] / "benchmarks" / "quality" / "results.jsonl"
    neural = [record for record in read_records(path) if record["kind"] == "neural"]
    assert len(neural) > 0
    for record in neural:
        assert record["metrics"]["draws"] == pytest.approx(1) or record["metrics"]["draws"] >= 100
        assert record["metrics"]["epochs"] >= 1


def test_trials_by_ticks_replace_those_by_densities_of_every_seed(tmp_path: Path):
    """Their mean would be that of two different quantities."""

    def trial(name: str, on: str, seed: int, **metrics: float) -> dict:
        return {"set": on, "kind": "neural", "name": name, "seed": seed, "metrics": metrics}

    trials = [
        trial("IntensityFree", "chess", 0, nll=1.3),
        trial("IntensityFree", "chess", 1, nll=1.8),
        trial("IntensityFree", "taxi", 1, nll=10.5),
        trial("NHP", "chess", 1, nll=3.2),
        trial("IntensityFree", "chess", 0, nll=3.2, scores_ticks=1.0),
    ]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in trials))
    kept = [(record["set"], record["name"], record["seed"]) for record in read_records(path)]
    assert kept == [
        ("chess", "IntensityFree", 0),
        ("taxi", "IntensityFree", 1),
        ("chess", "NHP", 1),
    ]
