"""A metric has one name: evaluation emits exactly the names that its pages explain."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmtpp import evaluate
from mmtpp.core.forecasting.event_matching import EventSet
from mmtpp.core.training.loss_sums import LossSums
from mmtpp.evaluate.actors.answer_scorer import ANSWER_SCHEMA
from mmtpp.evaluate.actors.window_scorer import EVENT_SCHEMA
from mmtpp.evaluate.answers import answer_estimates
from mmtpp.evaluate.baselines.code_baseline import BaselineCounts, IntervalCodeBaseline
from mmtpp.evaluate.horizon import horizon_estimates
from mmtpp.evaluate.likelihoods import baseline_metrics, event_metrics, loss_metrics
from mmtpp.evaluate.scores import metric_names, renamed_metrics
from mmtpp.evaluate.scores.estimates import as_json_tree, finite_values
from mmtpp.evaluate.scores.metric_table import FORECAST_METRICS, HORIZON_METRICS
from mmtpp.evaluate.scores.metrics import estimate_metrics
from mmtpp.evaluate.scores.position_ranges import POSITION_RANGES
from mmtpp.evaluate.scores.targets import TARGET_SCHEMA

EVALUATE = Path(evaluate.__path__[0])
PAGES = (EVALUATE / "README.md", EVALUATE.parents[1] / "docs" / "questions.md")
POSITIONS = ("1-49", "50-199", "200-499", "500_up")


def _explained() -> set[str]:
    """Names in the first column of the pages' tables of metrics."""
    names: set[str] = set()
    is_metrics = False
    for line in (line for page in PAGES for line in page.read_text().splitlines()):
        if not line.startswith("|"):
            is_metrics = False
        elif line.startswith("| metric |"):
            is_metrics = True
        elif is_metrics:
            names |= set(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return names


def _filled(schema: pa.Schema, size: int) -> pa.Table:
    """A table with a value in every cell."""
    values: dict[str, list] = {}
    for field in schema:
        if pa.types.is_string(field.type):
            values[field.name] = [f"s{row % 5}" for row in range(size)]
        elif pa.types.is_floating(field.type):
            values[field.name] = [0.5 + row % 3 for row in range(size)]
        else:
            values[field.name] = [1 + row % 2 for row in range(size)]
    return pa.Table.from_pydict(values, schema)


def _target_estimates() -> dict:
    targets = _filled(TARGET_SCHEMA, 40)
    place = targets.schema.get_field_index("position")
    return estimate_metrics(
        targets.set_column(place, "position", pa.array(np.arange(40) * 20 + 1)),
        seconds_per_unit=1.0,
        resamples=20,
    )


def _horizon_estimates() -> set[str]:
    future = [EventSet.from_known_types(np.array([1.0]), np.array([0]), 2)]
    estimates = horizon_estimates(future, future, np.array([0]), horizon=2.0, seconds_per_unit=1.0)
    return {*estimates, "horizon/truncated_futures"}  # the last is added where futures are drawn


def _emitted() -> set[str]:
    events = _filled(EVENT_SCHEMA, 20)
    losses = LossSums(np.ones(5), np.ones(5))
    statistics = BaselineCounts(IntervalCodeBaseline(2))
    statistics.add(np.array([1.0, 2.0]), np.array([1, 2]))
    pairs = [
        ("3", "3"),
        ("0.5", "0.25"),
        ("humor/meme, question", "question"),
        ("yes", "no"),
        ("a longer answer in words", "another one"),
    ]
    answers = [
        {
            "sequence_id": f"a#{row}",
            "question_index": 0,
            "question": "?",
            "answer": true,
            "written": written,
            "nll": 1.0,
            "tokens": 2,
        }
        for row, (true, written) in enumerate(pairs)
    ]
    return {
        *loss_metrics(losses, num_events=20),
        *event_metrics(events, 1.0),
        *baseline_metrics(events, statistics),
        *_target_estimates(),
        *answer_estimates(pa.Table.from_pylist(answers, ANSWER_SCHEMA)),
        *_horizon_estimates(),
    }


def test_every_metric_is_explained_under_its_name_and_no_other_is():
    emitted, explained = _emitted(), _explained()
    whole = {name for name in emitted if "/at_" not in name}
    assert whole == explained
    assert [name for name in _target_estimates() if "/at_" not in name] == list(FORECAST_METRICS)
    assert _horizon_estimates() == {*HORIZON_METRICS}
    places = {name.partition("/at_")[2] for name in emitted - whole}
    assert places == set(POSITIONS)
    assert {name.partition("/at_")[0] for name in emitted - whole} <= explained
    page = PAGES[0].read_text()
    assert all(f"/at_{place}`" in page for place in POSITIONS)


def test_metrics_of_likelihoods_have_a_prefix_and_a_sweep_may_compare_models_by_them():
    of_model = {*loss_metrics(LossSums(np.ones(5), np.ones(5)), num_events=20)}
    of_model |= {*event_metrics(_filled(EVENT_SCHEMA, 20), 1.0)}
    statistics = BaselineCounts(IntervalCodeBaseline(2))
    statistics.add(np.array([1.0, 2.0]), np.array([1, 2]))
    of_baselines = {*baseline_metrics(_filled(EVENT_SCHEMA, 20), statistics)}
    assert all(name.startswith("likelihood/") for name in of_model | of_baselines)
    no_measure = {name for name in of_model if name.endswith(("_standard_error", "_interval_s"))}
    assert of_model - no_measure == {*metric_names.LIKELIHOODS}
    # a type given the interval is another question than the type given the history alone
    accuracies = {name for name in of_model | {*FORECAST_METRICS} if name.endswith("accuracy")}
    last_words = [re.sub("[^a-z0-9]", "", name) for name in accuracies]
    assert len(set(last_words)) == len(last_words)


def test_renamed_metrics_have_their_new_name_only():
    emitted = _emitted()
    for old, new in renamed_metrics.RENAMED.items():
        assert renamed_metrics.new_name(old) == new
        assert old not in emitted
        assert new in emitted
    assert {*renamed_metrics.RENAMED_RANGES.values()} == {*POSITION_RANGES}
    assert renamed_metrics.new_name("time/rmse_s/at_over_500") == "time/rmse_s/at_500_up"
    for name in emitted | {"validation/type_accuracy"}:
        assert renamed_metrics.new_name(name) is None


def test_files_and_tracking_have_the_same_names_which_tracking_accepts():
    estimates = _target_estimates()
    assert set(as_json_tree(estimates)) == set(finite_values(estimates)) == set(estimates)
    # letters, digits and the other characters that MLflow allows
    assert all(re.fullmatch(r"[A-Za-z0-9_\-. :/]+", name) for name in _emitted())


def test_a_column_of_both_tables_means_the_same_in_both():
    shared = {*EVENT_SCHEMA.names} & {*TARGET_SCHEMA.names}
    # nats of the type given the interval, and of the text
    assert {name for name in shared if name.endswith("nll")} == {"joint_type_nll", "text_nll"}
