"""The benchmarks of quality and of optimisers, at a size that only checks that they run."""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from unittest.mock import patch

import pytest

from benchmarks.optimizers import training
from benchmarks.optimizers.report import write_report as write_optimizers
from benchmarks.quality import curves, little_data
from benchmarks.quality import run as quality
from benchmarks.quality.curve_report import read_curves
from benchmarks.quality.curve_report import write_report as write_curve_report
from benchmarks.quality.curve_trials import validation_nll
from benchmarks.quality.little_report import write_report as write_little_report
from benchmarks.quality.little_sets import LITTLE, Limits
from benchmarks.quality.report import write_report
from benchmarks.quality.sets import DataSet, chess, transcripts
from benchmarks.quality.soft_trial import NUM_VALIDATIONS, train_soft
from benchmarks.quality.trial import open_store, start_engine, train
from mmtpp.config.load import with_values
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.data.from_config import build_training_questions
from mmtpp.data.prepare import prepare
from mmtpp.evaluate.scores.metrics import target_values
from mmtpp.storage.manifest import load_manifest
from tests.helpers.published_events import publish_events


@pytest.fixture(autouse=True)
def _restored_environment() -> Iterator[None]:
    """Remove the variables that the benchmarks set for DeepSpeed in their own process."""
    with patch.dict(os.environ):
        yield


def test_a_small_quality_benchmark_writes_its_tables(cluster, tmp_path, monkeypatch):
    publish_events(str(tmp_path / "raw"))
    source = {"kind": "mmtpp", "uri": str(tmp_path / "raw")}
    small = DataSet("lines", {"source": source}, has_images=True, delta=2.0)
    monkeypatch.setattr(quality, "WORK", tmp_path / "work")
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"lines": small})
    path, sums = tmp_path / "results.jsonl", tmp_path / "sums"
    only = [
        "temporal expert",
        "plain",
        "temporal, tokens (paper)",
        "one target a window (paper)",
    ]
    for _ in range(2):  # the second run has no unfinished trials
        quality.run(["lines"], [0], budget=quality.SMALL, only=only, path=path, sums=sums)
    longer = replace(quality.SMALL, steps=(7, 4))
    with pytest.raises(ValueError, match="was run with the budget"):  # tables do not mix budgets
        quality.run(["lines"], [0], budget=longer, only=only, path=path, sums=sums)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    names = [record["name"] for record in records]
    assert sorted(names) == sorted(["marginal", "poisson", "hawkes", "last", *only])
    assert len({record["targets"] for record in records}) == 1  # all on the same events
    write_report(path, tmp_path, budget=quality.SMALL, sums=sums)
    text = (tmp_path / "quality.md").read_text()
    assert all(f"| {name} |" in text for name in names)
    [row] = [line for line in text.splitlines() if "| lines | temporal expert | plain |" in line]
    assert all(cell.strip() for cell in row.strip("|").split("|"))  # with a standard error
    assert (tmp_path / "positions.png").stat().st_size > 1000


def test_small_learning_curves_end_with_the_models_of_trainings_without_validations(
    cluster, tmp_path, monkeypatch
):
    publish_events(str(tmp_path / "raw"))
    settings = {
        "source": {"kind": "mmtpp", "uri": str(tmp_path / "raw")},
        "split": {"validation_fraction": 0.4, "test_fraction": 0.1},
    }
    small = DataSet("lines", settings, has_images=True, delta=2.0, max_test=2)
    monkeypatch.setattr(quality, "WORK", tmp_path / "work")
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"lines": small})
    monkeypatch.setattr(curves, "NEURAL", ())  # the unit tests have them
    path = tmp_path / "curves.jsonl"
    for _ in range(2):  # the second run has no unfinished curves
        curves.run(["lines"], [0], budget=quality.SMALL, path=path, workers=1)
    records = read_curves(path)
    by_name = {record["name"]: record for record in records}
    assert list(by_name) == ["temporal expert", "soft tokens", "plain"]
    assert len(records) == 3
    assert {record["targets"] for record in records} == {2 * 39}  # all on the same events

    config = quality.configuration(small, quality.SMALL)
    first = with_values(config, {"training.seed": 0, "training.num_steps": 6})
    second = with_values(first, {"training.num_steps": 4})
    model, _ = train(first, AllTokens())
    model, _ = train(second, build_training_questions(second.tasks), model=model)
    plain = by_name["plain"]
    assert plain["points"][-1][2] == validation_nll(second, model)[0]
    assert plain["points"][-1][:2] == [plain["seconds"], plain["num_events"]]
    assert plain["points"][0][1] > plain["num_events"] / 2  # after the six steps of stage 1

    trained = train_soft(config, 0, steps=quality.SMALL.soft_steps)
    soft = by_name["soft tokens"]
    assert len(soft["points"]) == NUM_VALIDATIONS
    assert [point[2] for point in soft["points"]] == [point.nll for point in trained.curve.points]
    values = target_values(trained.forecast(trained.validation))  # of the weights that are kept
    nll = values["joint_nll"].sum() / values["has_density"].sum()
    assert min(point[2] for point in soft["points"]) == pytest.approx(nll, abs=1e-5)

    write_curve_report(path)
    text = path.with_suffix(".md").read_text()
    assert all(f"| {name} | 1 |" in text for name in by_name)
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_a_small_benchmark_of_little_data_writes_its_tables(cluster, tmp_path, monkeypatch):
    publish_events(str(tmp_path / "raw"))
    settings = {
        "source": {"kind": "mmtpp", "uri": str(tmp_path / "raw")},
        "split": {"validation_fraction": 0.0, "test_fraction": 0.3},
    }
    small = DataSet("lines", settings, has_images=True, delta=2.0)
    monkeypatch.setattr(quality, "WORK", tmp_path / "work")
    monkeypatch.setattr(quality, "data_sets", lambda _work: {"lines": small})
    path, sums = tmp_path / "little_data.jsonl", tmp_path / "sums"
    for _ in range(2):  # the second run has no unfinished trials
        little_data.run(
            ["lines"],
            [0, 1],
            held_out="test",
            budget=quality.SMALL,
            path=path,
            sums=sums,
            limits=Limits(num_training=6, max_events=30),
        )
    records = [json.loads(line) for line in path.read_text().splitlines()]
    names = ["last", "marginal", "poisson", "hawkes", "temporal expert"]
    assert [record["name"] for record in records] == names * 2
    manifests = [
        load_manifest(str(tmp_path / "work" / f"lines_little_test_{draw}_store")) for draw in (0, 1)
    ]
    full = load_manifest(str(tmp_path / "work" / "lines_store"))
    for manifest in manifests:
        assert (manifest.sequences_by_split["train"], manifest.frames) == (3, 0)
        assert manifest.sequences_by_split["validation"] == LITTLE.num_validation
        assert manifest.events_by_split["train"] == 3 * 30
        assert manifest.events_by_split["test"] == full.events_by_split["test"]
    assert manifests[0].fingerprint != manifests[1].fingerprint
    num_targets = full.events_by_split["test"] - full.sequences_by_split["test"]
    assert {record["targets"] for record in records} == {num_targets}
    write_little_report(path, sums, tmp_path / "little.md", held_out="test")
    text = (tmp_path / "little.md").read_text()
    assert all(f"| {name} | 2 |" in text for name in names if name != "last")
    [row] = [line for line in text.splitlines() if line.startswith("| lines |")]
    assert all(cell.strip() for cell in row.strip("|").split("|"))  # with a standard error


def test_texts_and_images_of_real_sets(cluster, real_data, tmp_path, monkeypatch):
    """A few games of chess and parts of transcripts, with and without what they show."""
    pytest.importorskip("chess", reason="chess is not installed: pip install -e .[quality]")
    raw = tmp_path / "parts"
    raw.mkdir()
    table = real_data / "transcripts_spaceflight" / "utterances.csv.gz"
    with gzip.open(table, "rt", encoding="utf-8") as file:
        (raw / "utterances.csv").write_text("".join(islice(file, 2000)))
    games = real_data / "chess_lichess_2017" / "games.jsonl.gz"
    sets = {
        "transcripts": transcripts(raw),
        "chess": chess(games, tmp_path / "games", max_games=25),
    }
    monkeypatch.setattr(quality, "WORK", tmp_path / "work")
    monkeypatch.setattr(quality, "data_sets", lambda _work: sets)
    only = ["temporal expert", "marginal by text length", "plain", "without images and texts"]
    results = quality.run(
        list(sets),
        [0],
        budget=quality.SMALL,
        only=[*only, "without texts"],
        path=tmp_path / "results.jsonl",
        sums=tmp_path / "sums",
    )
    for name in sets:
        of_set = [record for record in results.records if record["set"] == name]
        names = {"transcripts": [*only[:3], "without texts"], "chess": [*only, "without texts"]}
        classical = ["marginal", "poisson", "hawkes", "last"]
        assert sorted(record["name"] for record in of_set) == sorted([*classical, *names[name]])
        assert len({record["targets"] for record in of_set}) == 1  # all on the same events
        manifest, _ = open_store(quality.configuration(sets[name], quality.SMALL))
        assert manifest.events_rejected == 0
    context = {record["name"]: record["context"] for record in of_set if "context" in record}
    assert context["plain"] < context["without texts"] < context["without images and texts"]


def test_a_small_optimiser_benchmark_writes_its_tables(cluster, tmp_path, monkeypatch):
    publish_events(str(tmp_path / "raw"))
    settings = {
        "source": {"kind": "mmtpp", "uri": str(tmp_path / "raw")},
        "split": {"validation_fraction": 0.4, "test_fraction": 0.1},
    }
    small = DataSet("lines", settings, has_images=True, delta=2.0)
    config = training.configuration(small, str(tmp_path / "store"))
    prepare(config)
    monkeypatch.setattr(training, "STEPS", 4)
    start_engine()
    chosen = [
        changes for changes in training.trials() if changes["optimizer.name"] in ("muon", "signum")
    ][::4]
    chosen.append({"optimizer.name": "muon", "training.learning_rate": training.RATE["muon"]})
    path = tmp_path / "results.jsonl"
    with path.open("w") as file:
        for changes in chosen:
            metrics = training.run(small, str(tmp_path / "store"), changes, 0)
            assert metrics["nll"] > 0
            trial = {"kind": "training", "set": "lines", "seed": 0, "changes": changes}
            file.write(json.dumps({"trial": trial, "found": metrics}) + "\n")
    write_optimizers(path, tmp_path)
    text = (tmp_path / "optimizers.md").read_text()
    assert "## lines" in text
    assert "| muon, weights, nearest |" in text
    assert (tmp_path / "rates.png").stat().st_size > 1000
    assert (tmp_path / "bits.png").stat().st_size > 1000
