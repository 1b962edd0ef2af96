"""The likelihood of events depends on the unit of their times only by the unit's logarithm.

Expected: the change of variables of a density. It is exact for units that only shift the exponent
of a float, and holds up to the width of a step (0.8 %) for other units.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalRange
from mmtpp.core.representation.time_smoothing import TimeSmoothing


@given(
    seed=st.integers(0, 2**32),
    power=st.sampled_from([-6, -2, 4, 12]),  # even ones: the first byte holds pairs of octaves
    tick=st.sampled_from([1.0, 60.0, 0.001, 0.0]),
    num_bytes=st.sampled_from([2, 4]),
)
def test_forecasts_in_units_that_only_shift_the_exponent(
    seed: int, power: int, tick: float, num_bytes: int
):
    """The same probabilities over the same steps, so the same likelihood exactly."""
    rng = np.random.default_rng(seed)
    waits = np.ceil(rng.gamma(0.7, 300.0, 20)) * (tick or np.pi) * (rng.random(20) > 0.2)
    waits[0] = 5 * (tick or np.pi)
    unit = 2.0**power
    positive = waits[waits > 0]
    plain, shifted = (
        IntervalRange(positive.min() / scale, positive.max() / scale, tick / scale).grid(
            num_bytes=num_bytes
        )
        for scale in (1.0, unit)
    )
    assert np.array_equal(plain.edges / unit, shifted.edges)
    mass, zero = rng.dirichlet(np.full(len(plain.widths), 0.1), 20), rng.uniform(0, 0.5, 20)
    mass *= 1 - zero[:, None]
    expected = IntervalForecasts(plain, zero, mass, zero * 0).nll(waits, tick=tick)
    actual = IntervalForecasts(shifted, zero, mass, zero * 0).nll(waits / unit, tick=tick / unit)
    assert np.allclose(actual, expected - np.log(unit), equal_nan=True, atol=1e-9)
    assert (np.isnan(actual) == ((waits == 0) & (tick == 0))).all()


def test_smoothing_without_a_tick_weighs_codes_by_their_widths():
    ids = range(256)
    fine = TimeSmoothing(0.125, tick=1e-9, num_bytes=2, byte_ids=ids)
    none = TimeSmoothing(0.125, tick=0.0, num_bytes=2, byte_ids=ids)
    for first in (60, 63, 68):
        assert np.allclose(fine._weights(first), none._weights(first), atol=1e-5)
