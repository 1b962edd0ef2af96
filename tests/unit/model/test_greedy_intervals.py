"""The greedy forecast of an interval: two bytes of a time code, the most likely ones."""

import numpy as np

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.representation.timecode import bin_edges
from mmtpp.model.row_forecaster import NUM_FIRST_BYTES, greedy_intervals

FIRST = {
    "in the grid": {64: 0.4, 63: 0.3},
    "outside": {70: 0.9, 63: 0.06, 64: 0.04},
    "zero": {0: 1},
}
EXPECTED_CODE = {"in the grid": (64, 10), "outside": (63, 200)}


def test_the_most_likely_bytes_are_decoded_one_after_the_other():
    grid = IntervalGrid.from_first_bytes(63, 64, num_bytes=3)
    probabilities = np.full((len(FIRST), NUM_FIRST_BYTES), 1e-9)
    for row, of_byte in enumerate(FIRST.values()):
        for byte, probability in of_byte.items():
            probabilities[row, byte] = probability
    mass = np.zeros((len(FIRST), len(grid.edges) - 1))
    # the step of the largest probability, 63 and 200, does not have the most likely first byte
    mass[:, 1 + 200], mass[:, 1 + 256 + 10], mass[:, 1 + 256 + 11] = 0.5, 0.3, 0.2
    found = dict(zip(FIRST, greedy_intervals(grid, np.log(probabilities), mass), strict=True))
    for name, code in EXPECTED_CODE.items():
        low, high = bin_edges(np.array([[*code, 0], [*code, 255]], dtype=np.uint8))
        assert low[0] < found[name] < high[1]
        np.testing.assert_allclose(found[name], (low[0] + high[1]) / 2, rtol=1e-6)
    assert found["zero"] == 0.0
