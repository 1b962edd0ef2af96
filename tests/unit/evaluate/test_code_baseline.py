"""The baseline of interval bytes, by hand."""

import numpy as np
import pytest

from mmtpp.evaluate.baselines.code_baseline import IntervalCodeBaseline


def test_the_marginal_is_witten_bell_by_hand():
    """1.0 is 3F800000, 2.0 is 40000000: two of three first bytes are 3F.

    All other bytes are certain.
    """
    marginal = IntervalCodeBaseline(4)
    marginal.add(np.array([1.0, 1.0, 2.0]))
    first = (2 + 2 / 256) / (3 + 2)  # two distinct first bytes
    other = (2 + 1 / 256) / (2 + 1)  # one distinct byte after each prefix
    assert marginal.nll(np.array([1.0]))[0] == pytest.approx(-np.log(first * other**3))
    # never seen from the second byte on: 1.5 is 3FC00000, the last two bytes unknown as well
    second = (1 / 256) / (2 + 1)
    unknown = 1 / 256
    assert marginal.nll(np.array([1.5]))[0] == pytest.approx(-np.log(first * second * unknown**2))
