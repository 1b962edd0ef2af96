"""When an updated expert is better: an interval below zero over enough sequences."""

import pytest

from mmtpp.evaluate.scores.paired_difference import Difference
from mmtpp.update.comparison import LEAST_SEQUENCES, Comparison


@pytest.mark.parametrize(
    ("high", "num_sequences", "is_better"),
    [
        (-0.01, LEAST_SEQUENCES, True),
        (0.01, LEAST_SEQUENCES, False),
        (-0.01, LEAST_SEQUENCES - 1, False),
        (-0.1, 1, False),  # all resamples of one sequence are equal
    ],
)
def test_an_interval_below_zero_over_enough_sequences(high, num_sequences, is_better):
    comparison = Comparison(Difference(-0.1, 0.05, -0.2, high, num_sequences), 2.0, 100)
    assert comparison.is_better is is_better


def test_metrics_are_finite():
    comparison = Comparison(Difference(float("inf"), 0.0, 0.0, float("nan"), 9), 2.0, 100)
    assert comparison.as_metrics() == {
        "update/minus_before_low": 0.0,
        "update/before_nats_per_event": 2.0,
        "update/compared_events": 100.0,
        "update/compared_sequences": 9.0,
    }
