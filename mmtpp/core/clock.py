"""The clock that times were read from: its tick, found from the intervals between them."""

import numpy as np
from numpy.typing import NDArray

FINEST = 9  # decimal digits that are looked at
NOISE = 1e-3  # of a decimal unit: what sums of floats may be off
EXACT = 2.0**50  # larger whole numbers of units are not told apart safely


class Clock:
    """Collects intervals and knows the coarsest tick that they are all whole numbers of.

    The tick is a whole number of 1, 0.1, 0.01, … source units: 60 where all intervals are minutes
    in seconds, 0.001 for milliseconds. Times without a clock have a tick of 1e-9.
    """

    def __init__(self) -> None:
        self._divisors = dict.fromkeys(range(FINEST + 1), 0)

    def add(self, intervals: NDArray[np.float64]) -> None:
        """Take (E,) intervals into account, none negative, in the source's unit."""
        for digits in list(self._divisors):
            units = intervals * 10.0**digits
            whole = np.rint(units)
            if (np.abs(units - whole) > NOISE).any() or whole.max(initial=0) > EXACT:
                del self._divisors[digits]
            else:
                found = np.gcd.reduce(whole.astype(np.int64), initial=self._divisors[digits])
                self._divisors[digits] = int(found)

    @property
    def tick(self) -> float:
        """In the source's unit, above 0."""
        for digits, divisor in self._divisors.items():
            if divisor:
                return divisor / 10.0**digits
        return 10.0**-FINEST
