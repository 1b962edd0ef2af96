"""Learning curves of the quality benchmark: their records, and the arithmetic of their table."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import curves, learning_curve, workers
from benchmarks.quality import run as quality
from benchmarks.quality.curve_report import (
    finite_points,
    first_near_best,
    read_curves,
    write_report,
)
from benchmarks.quality.curve_trials import EXPERT, run_curve
from benchmarks.quality.expert_trial import train_expert
from benchmarks.quality.learning_curve import CurvePoint, LearningCurve
from benchmarks.quality.neural import _nll_of_halves
from benchmarks.quality.results import SMALL, Trial
from benchmarks.quality.sets import DataSet
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.totals import Totals
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.storage.manifest import Manifest, load_manifest
from tests.helpers.published_events import NUM_EVENTS, publish_events
from tests.helpers.steps import SETTINGS, encode_shard

NO_EASYTPP = "EasyTPP is not installed: pip install -e .[quality]"
HELD_OUT = {"validation_fraction": 0.3, "test_fraction": 0.2}


class _Clock:
    """Replaces the module ``time``: its CPU time is set by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def process_time(self) -> float:
        return self.now


def test_time_between_steps_is_not_training(monkeypatch: pytest.MonkeyPatch):
    clock = _Clock()
    monkeypatch.setattr(learning_curve, "time", clock)
    curve = LearningCurve()
    for nll in (3.0, 2.0):
        with curve.training():
            clock.now += 2.0
        curve.num_events += 10
        clock.now += 5.0  # a validation
        curve.add_point(nll)
    assert curve.points == [(2.0, 10, 3.0), (4.0, 20, 2.0)]
    assert (curve.seconds, curve.num_events) == (4.0, 20)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The data set ``lines`` in a work folder, of 24 sequences, prepared without Ray."""
    raw, store = tmp_path / "raw", tmp_path / "lines_store"
    publish_events(str(raw))
    source = {"kind": "mmtpp", "uri": str(raw)}
    data = DataSet("lines", {"source": source}, has_images=False, delta=2.0, max_test=2)
    monkeypatch.setattr(quality, "WORK", tmp_path)
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"lines": data})
    tokenizer = train_tokenizer(["event 0 of line 1"], size=300)
    changes = {"source_uri": str(raw), **HELD_OUT}
    paths = sorted(path.name for path in raw.glob("*.json"))
    counts = encode_shard(str(store / "data"), paths, tokenizer=tokenizer, **changes)
    totals = Totals()
    totals.add(counts)
    settings = EncodeSettings(**{**SETTINGS, **changes})
    totals.build_manifest(settings, "request", "data", Vocabulary(tokenizer).hash).save(str(store))
    return load_manifest(str(store))


def test_the_curve_of_an_expert_ends_with_the_nll_of_all_its_networks(lines: Manifest):
    assert lines.sequences_by_split["validation"] > 2
    record = run_curve(Trial("lines", "expert", EXPERT.name, 0), SMALL)
    assert record["targets"] == 2 * (NUM_EVENTS - 1)  # of the first two sequences
    assert record["budget"] == [SMALL.expert_steps]
    # three networks of six steps, all of the same size; the points are those of the first network
    *points, last = finite_points(record)
    assert last == (record["seconds"], record["num_events"], record["whole"].nll)
    assert points[-1].num_events == record["num_events"] / 3
    assert 0 < points[0].seconds < points[-1].seconds < record["seconds"]
    per_epoch = lines.sequences_by_split["train"] * (NUM_EVENTS - 1)
    assert record["epochs"] == pytest.approx(record["num_events"] / per_epoch)
    assert record["events_per_s"] == pytest.approx(record["num_events"] / record["seconds"])


def test_the_last_point_is_that_of_the_forecasts_of_an_evaluation(
    lines: Manifest, monkeypatch: pytest.MonkeyPatch
):
    """Also with all validation sequences, by which an expert outside of curves stops."""
    data = replace(quality.data_sets(quality.WORK)["lines"], max_test=0)
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"lines": data})
    record = run_curve(Trial("lines", "expert", EXPERT.name, 0), SMALL)
    config = quality.configuration(data, SMALL)
    trained = train_expert(config, seed=0, max_steps=SMALL.expert_steps)
    targets = trained.forecast(config, split="validation")
    assert lines.tick_s  # with a clock, both score every interval by the probability of its tick
    nll = estimate_metrics(targets, seconds_per_unit=1.0, resamples=2)["joint/nll_nats_per_event"]
    assert len(targets) == record["targets"]
    assert record["whole"].nll == pytest.approx(nll.value, abs=1e-5)
    assert trained.curve.points[-1].nll == record["points"][-1][2]


def test_finished_curves_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, begun = tmp_path / "curves.jsonl", []

    def run_one(trial: Trial, budget) -> dict:
        begun.append(trial)
        names = {"set": trial.set, "kind": trial.kind, "name": trial.name, "seed": trial.seed}
        return {**names, "budget": trial.share(budget), "points": []}

    monkeypatch.setattr(curves, "run_curve", run_one)
    monkeypatch.setattr(quality, "prepare_set", lambda *_: None)
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"a": None, "b": None})
    monkeypatch.setattr(quality, "WORK", tmp_path)
    monkeypatch.setattr(workers, "start_engine", lambda: None)

    def run(sets: list[str], seeds: list[int], budget=SMALL, only=()) -> list[Trial]:
        begun.clear()
        curves.run(sets, seeds, budget=budget, path=path, only=only, workers=1)
        return list(begun)

    assert run(["a"], [0], only=["NHP"]) == [Trial("a", "neural", "NHP", 0)]
    path.unlink()
    first = run(["a"], [0])
    assert [trial.name for trial in first] == [
        "temporal expert",
        "soft tokens",
        "plain",
        "IntensityFree",
        "NHP",
        "S2P2",
    ]
    assert run(["a"], [0]) == []
    later = run(["a", "b"], [0, 1])
    assert sorted((trial.set, trial.seed) for trial in later) == sorted(
        [("a", 1), ("b", 0), ("b", 1)] * 6
    )
    assert len(read_curves(path)) == 24
    with pytest.raises(ValueError, match=r"IntensityFree.* was run with the budget \[1\.0\]"):
        run(["a"], [0], replace(SMALL, neural_s=2.0))


def _record(name: str, points: list, **changes) -> dict:
    """A curve whose training took 100 s and saw 4,000 events in 4 epochs."""
    kind = {"temporal expert": "expert", "NHP": "neural"}[name]
    record = {"set": "lines", "kind": kind, "name": name, "seed": 0, "points": points}
    record |= {"seconds": 100.0, "num_events": 4000, "targets": 50}
    return {**record, "epochs": 4.0, "events_per_s": 40.0, **changes}


def test_the_table_has_the_first_validation_near_the_best_one(tmp_path: Path):
    first = [[10.0, 400, 3.0], [20.0, 800, 2.019], [30.0, 1200, 2.0], [40.0, 1600, 2.5]]
    second = [[10.0, 400, 3.0], [20.0, 800, 2.1], [60.0, 2400, None], [80.0, 3200, 2.2]]
    slower = {"seed": 1, "seconds": 200.0, "epochs": 6.0, "events_per_s": 20.0}
    # the first network is within .02 of its own best NLL after 20 s, the mean of all is better
    network = [[20.0, 1000, 1.91], [30.0, 1500, 1.9]]
    records = [
        _record("temporal expert", network, whole=[100.0, 4000, 1.85]),
        _record("NHP", first),
        _record("NHP", second, **slower),
    ]
    path = tmp_path / "curves.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(path)
    rows = {line.split(" |")[0]: line for line in (tmp_path / "curves.md").read_text().splitlines()}
    assert rows["| temporal expert"] == (
        "| temporal expert | 1 | 1.850 | 100.0 | 4,000 | 100.0 | 4,000 | 4.0 | 40 |"
    )
    # NLL 2.0 and 2.1: mean 2.05, standard deviation .1 / sqrt(2); both are near after 20 s
    assert rows["| NHP (1 validations without a finite NLL)"] == (
        "| NHP (1 validations without a finite NLL) | 2 | 2.050 ± 0.071 | 20.0 ± 0.0 | 800 ± 0 "
        "| 150.0 ± 70.7 | 4,000 ± 0 | 5.0 ± 1.4 | 30 ± 14 |"
    )
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_failed_training_is_named(tmp_path: Path):
    path = tmp_path / "curves.jsonl"
    head = {"set": "lines", "kind": "neural", "name": "NHP", "seed": 0}
    path.write_text(json.dumps({**head, "error": "ValueError: no likelihood"}) + "\n")
    write_report(path)
    text = (tmp_path / "curves.md").read_text()
    assert "| NHP (failed: ValueError: no likelihood) | 1 |  |  |  |  |  |  |  |" in text


def test_the_first_near_point_may_be_worse_than_later_ones():
    points = [CurvePoint(1.0, 10, 5.02), CurvePoint(2.0, 20, 5.0), CurvePoint(3.0, 30, 4.99)]
    assert first_near_best(points).seconds == 2.0
    assert first_near_best(points[:2]).seconds == 1.0


def test_halves_of_ticks_count_for_simultaneous_events():
    # intervals 0, 2 and 0, 0, 3: three of five are half a tick for EasyTPP and a tick here
    split = [[[1.0, 1.0, 3.0], [0, 1, 0]], [[5.0, 5.0, 5.0, 8.0], [0, 0, 0, 0]]]
    assert _nll_of_halves(split) == pytest.approx(0.6 * math.log(2))


# the CPU time advances by a hundredth of a second per reading, so trainings can be compared
NEURAL = """
import itertools, json, sys, time
readings = itertools.count()
time.process_time = lambda: next(readings) / 100
from benchmarks.quality import neural
work = neural.learning_curve if sys.argv[2] == "curve" else neural.run
print(json.dumps(work(sys.argv[1], 0.3, 0, json.load(sys.stdin))))
"""


def _train_neural(model: str, work: str, sequences: dict) -> dict:
    process = subprocess.run(
        [sys.executable, "-c", NEURAL, model, work],
        input=json.dumps(sequences),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def test_the_best_point_of_a_neural_curve_is_that_of_the_tested_model():
    pytest.importorskip("easy_tpp", reason=NO_EASYTPP)

    def draw(num_sequences: int, seed: int) -> list:
        rng = np.random.default_rng(seed)
        return [
            [np.cumsum(rng.integers(1, 5, 20)).astype(float).tolist(), [0, 1] * 10]
            for _ in range(num_sequences)
        ]

    sequences = {"num_types": 2, "tick": 1.0, "train": draw(100, 0), "validation": draw(10, 1)}
    curve = _train_neural("NHP", "curve", sequences)
    tested = _train_neural("NHP", "run", {**sequences, "test": sequences["validation"]})
    nll = [point[2] for point in curve["points"]]
    # EasyTPP shuffles, so float32 sums of a batch differ: by 5e-8 nats when this was written
    assert min(nll) == pytest.approx(tested["joint/nll_nats_per_event"], abs=1e-6)
    assert nll.index(min(nll)) + 1 == tested["best_epoch"]  # here every epoch is validated
    assert curve["seconds"] == tested["seconds"]
    assert curve["targets"] == 190
    # two batches of an epoch, of 64 and 36 sequences, each with 19 targets
    assert [point[1] for point in curve["points"]] == [
        1900 * (epoch + 1) for epoch in range(len(nll))
    ]
    assert curve["num_events"] == 1900 * len(nll)


def test_a_neural_trial_records_its_curve(lines: Manifest):
    pytest.importorskip("easy_tpp", reason=NO_EASYTPP)
    record = run_curve(Trial("lines", "neural", "IntensityFree", 0), SMALL)
    assert record["targets"] == 2 * (NUM_EVENTS - 1)
    assert record["points"][-1][:2] == (record["seconds"], record["num_events"])
    assert record["seconds"] >= SMALL.neural_s
    per_epoch = lines.sequences_by_split["train"] * (NUM_EVENTS - 1)
    assert record["epochs"] == pytest.approx(record["num_events"] / per_epoch)
