"""Losses of forecast events, summed by sequence, with values computed by hand."""

import math

import pyarrow as pa
import pytest

from mmtpp.evaluate.scores.targets import complete_targets
from mmtpp.update.target_losses import target_losses

COLUMNS = {
    "sequence_id": ["b", "a", "b"],
    "position": [1, 1, 2],
    "time_nll": [1.0, 2.0, 4.0],
    "simultaneous": [0.1, 0.2, 0.25],
    "type_nll": [8.0, 16.0, 32.0],
    "joint_type_nll": [0.5, 0.25, 0.125],
}


def _rows(table: pa.Table) -> dict[str, tuple[float, float, float]]:
    return {
        row["sequence_id"]: (row["events"], row["time_nll"], row["type_nll"])
        for row in table.to_pylist()
    }


def test_with_a_clock_the_sums_are_those_of_the_columns():
    rows = _rows(target_losses(complete_targets(dict(COLUMNS), 3), tick=1.0))
    assert rows == {"a": (1, 2.0, 0.25), "b": (2, 5.0, 0.625)}


def test_without_the_task_joint_the_type_is_forecast_from_the_history():
    columns = {name: values for name, values in COLUMNS.items() if name != "joint_type_nll"}
    rows = _rows(target_losses(complete_targets(columns, 3), tick=1.0))
    assert rows == {"a": (1, 2.0, 16.0), "b": (2, 5.0, 40.0)}


def test_without_a_clock_a_simultaneous_event_counts_by_its_probability():
    """The density of the other events is conditional on an interval above 0."""
    columns = {**COLUMNS, "time_nll": [1.0, 2.0, math.nan]}
    rows = _rows(target_losses(complete_targets(columns, 3), tick=0.0))
    assert rows["a"] == pytest.approx((1, 2.0 - math.log(0.8), 0.25))
    assert rows["b"] == pytest.approx((2, 1.0 - math.log(0.9) - math.log(0.25), 0.625))
