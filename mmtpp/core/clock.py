"""The clock that times were read from: its tick, found in seconds from the times of all sequences.

Times are floats, often seconds since 1970 divided by a unit, so an interval is a whole number of
ticks up to the rounding of the two times. The search knows how large that rounding may be, and
finds the same tick in whatever unit the times are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINEST = 9  # decimal digits of a second, or of the unit
_FINEST_OF_PARTS = 6  # decimal digits of a minute, an hour, a day, and of their parts
_PARTS = (60, 3600, 86400)
_ROUNDINGS = 3  # in spacings of floats: a time may be rounded to seconds and again to the unit
_SUMS = 1024  # in spacings of floats: rounding of times that are long sums of intervals
_NOISE = 1e-3  # share of a tick that the rounding of sums may take
_EVIDENCE = 20.0  # nats: chance would not put all intervals on ticks
_COHERENCE = 0.3  # mean cosine of the phase, where rounding is about as large as the tick

FloatArray = NDArray[np.float64]


@dataclass(slots=True)
class _Candidate:
    """Counts of one possible unit of the clock; sums over intervals, so that shards can be added.

    Attributes:
        step_s: the unit, in seconds.
        is_refuted: an interval is no whole number of it.
        divisor: greatest common divisor of the whole numbers; 0 before the first interval.
        evidence: nats by which chance is unlikely to fit all intervals.
        count: intervals that say something about it.
        cosine: sum of the cosines of the intervals' phases.
    """

    step_s: Fraction
    is_refuted: bool = False
    divisor: int = 0
    evidence: float = 0.0
    count: int = 0
    cosine: float = 0.0

    def add(self, intervals_s: FloatArray, spacing_s: FloatArray) -> None:
        """Count (E,) positive intervals; ``spacing_s`` is the distance of floats at their times."""
        step = float(self.step_s)
        decided = 2 * spacing_s <= step
        if not decided.any():
            return
        intervals_s, spacing_s = intervals_s[decided], spacing_s[decided]
        units = intervals_s / step
        whole = np.rint(units)
        share = np.maximum(
            _ROUNDINGS * spacing_s / step, np.minimum(_NOISE, _SUMS * spacing_s / step)
        )
        apart = np.abs(units - whole)
        if (apart > share).any():
            self.is_refuted = True
            return
        is_sure = share < 0.5
        found = np.where(is_sure, whole, 1.0)
        self.divisor = int(np.gcd.reduce(found.astype(np.int64), initial=self.divisor))
        self.evidence -= float(np.log(np.minimum(2 * share, 1.0)).sum())
        self.count += len(units)
        self.cosine += float(np.cos(2 * np.pi * (units - whole)).sum())

    def join(self, other: "_Candidate") -> None:
        """Add the counts of the same candidate for other sequences."""
        self.is_refuted |= other.is_refuted
        self.divisor = int(np.gcd(self.divisor, other.divisor))
        self.evidence += other.evidence
        self.count += other.count
        self.cosine += other.cosine

    @property
    def is_found(self) -> bool:
        """Whether the intervals are multiples of the unit, and not by chance."""
        if self.is_refuted or not self.count or not self.divisor:
            return False
        mean = self.cosine / self.count
        is_coherent = mean >= _COHERENCE and self.count * mean**2 >= _EVIDENCE
        return self.evidence >= _EVIDENCE or is_coherent


class Clock:
    """Collects the times of sequences and knows the coarsest tick that their intervals share.

    The tick is a whole number of 1, 0.1, 0.01, … seconds or parts of an hour or a day, or of the
    same parts of the unit where that is no round number of seconds. It is the same in every unit
    that the same events are written in.

    Args:
        seconds_per_unit: seconds in one unit of the times, above 0.
    """

    def __init__(self, seconds_per_unit: float = 1.0) -> None:
        self._seconds = seconds_per_unit
        unit = Fraction(repr(float(seconds_per_unit)))
        self._candidates = {step: _Candidate(step) for step in _steps(unit)}

    def add_times(self, times: FloatArray) -> None:
        """Take a sequence into account.

        Args:
            times: (E,) in the source's unit, not decreasing; may be negative.
        """
        intervals = np.diff(times)
        self._add(intervals, np.full(len(intervals), _spacing(times)))

    def add(self, intervals: FloatArray) -> None:
        """Take (E,) intervals into account, none negative, in the source's unit, as if they were
        measured from time 0."""
        self._add(intervals, np.full(len(intervals), _spacing(intervals)))

    def add_sequences(self, times: FloatArray, lengths: NDArray[np.integer]) -> None:
        """Take S sequences into account at once.

        Args:
            times: (E,) of all sequences, one after the other, in the source's unit.
            lengths: (S,) events of each sequence.
        """
        parts = [part for part in np.split(times, np.cumsum(lengths)[:-1]) if len(part) > 1]
        if parts:
            spacings = [np.full(len(part) - 1, _spacing(part)) for part in parts]
            self._add(np.concatenate([np.diff(part) for part in parts]), np.concatenate(spacings))

    def _add(self, intervals: FloatArray, spacing: FloatArray) -> None:
        # what is far below the floats' own rounding is a sum that should be zero
        chosen = intervals > np.maximum(spacing * _ROUNDINGS, 1e-12 * intervals.max(initial=0.0))
        intervals_s, spacing_s = (each[chosen] * self._seconds for each in (intervals, spacing))
        for candidate in self._candidates.values():
            if not candidate.is_refuted:
                candidate.add(intervals_s, spacing_s)

    def state(self) -> list[list[Any]]:
        """What was collected, as a JSON value."""
        return [
            [str(each.step_s), each.is_refuted, each.divisor, each.evidence, each.count,
             each.cosine]
            for each in self._candidates.values()
        ]  # fmt: skip

    def join(self, state: Iterable[list[Any]]) -> None:
        """Add what another clock of the same unit has collected: its ``state``."""
        for step, *counts in state:
            self._candidates[Fraction(step)].join(_Candidate(Fraction(step), *counts))

    @property
    def tick_s(self) -> float:
        """Seconds; 0 where the times have no tick, or too few intervals show one."""
        for candidate in self._candidates.values():
            if candidate.is_found:
                return float(candidate.step_s * candidate.divisor)
        return 0.0

    @property
    def tick(self) -> float:
        """The tick in the source's unit; 0 where there is none."""
        return self.tick_s / self._seconds


def on_ticks(intervals: FloatArray, tick: float) -> FloatArray:
    """Intervals without the rounding of the times: the nearest whole numbers of ticks.

    Args:
        intervals: (E,) in the source's unit.
        tick: of the clock, in the same unit; 0 leaves the intervals unchanged.
    """
    return np.rint(intervals / tick) * tick if tick else intervals


def _steps(unit: Fraction) -> list[Fraction]:
    """The candidates in seconds, from the coarsest to the finest."""
    steps: set[Fraction] = set()
    for base in {Fraction(1), unit}:
        steps |= {base / 10**digits for digits in range(FINEST + 1)}
        steps |= {
            base / part / 10**digits for part in _PARTS for digits in range(_FINEST_OF_PARTS + 1)
        }
    return sorted(steps, reverse=True)


def _spacing(times: FloatArray) -> float:
    """Distance of neighbouring floats at the largest of (E,) times, of single precision where all
    of them are such floats and not whole."""
    largest = np.abs(times).max(initial=0.0)
    with np.errstate(over="ignore"):
        singles = times.astype(np.float32)
    if (singles == times).all() and (times != np.rint(times)).any():
        return float(np.spacing(np.float32(largest)))
    return float(np.spacing(largest))
