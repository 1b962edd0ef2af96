"""The clock that times were read from: its tick, estimated from the times of all sequences.

Times are floats, often seconds since 1970 divided by a unit. So an interval is a whole number of
ticks, up to the rounding of its two times. The search bounds this rounding, works in seconds, and
finds the same tick in whatever unit the times are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINEST = 9  # decimal digits of a second, or of the unit
_FINEST_OF_PARTS = 3  # decimal digits of a minute, an hour or a day, and of the unit's parts
_PARTS = (60, 3600, 86400)
_ROUNDINGS = 3  # in spacings of floats: a time may be rounded to seconds and again to the unit
_SUMS = 1024  # in spacings of floats: rounding of times that are long sums of intervals
_NOISE = 1e-3  # share of a tick that the rounding of sums may take
_EVIDENCE = 20.0  # nats; below, all intervals may be on ticks by coincidence
_COHERENCE = 0.3  # mean cosine of the phase, where rounding is about as large as the tick

FloatArray = NDArray[np.float64]


@dataclass(slots=True)
class _Candidate:
    """Evidence for one possible unit of the clock.

    The numbers are sums over intervals, so candidates of several shards can be merged.

    Attributes:
        step_s: The unit, in seconds.
        is_refuted: True if an interval is not a whole number of units.
        divisor: Greatest common divisor of the whole numbers; 0 before the first interval.
        is_loose: True if some interval fits only with the larger error.
        fine: Evidence in nats that the intervals fit with the smaller error, not by coincidence.
        loose: Evidence in nats that the intervals fit with the larger error, not by coincidence.
        grain: Largest error of times in single precision, in seconds. A finer tick would be an
            artefact of the rounding.
        count: Number of intervals that are exact enough to test the unit.
        cosine: Sum of the cosines of the intervals' phases.
    """

    step_s: Fraction
    is_refuted: bool = False
    divisor: int = 0
    is_loose: bool = False
    fine: float = 0.0
    loose: float = 0.0
    grain: float = 0.0
    count: int = 0
    cosine: float = 0.0

    def add(self, intervals: "_Intervals") -> None:
        """Count intervals, or refute the candidate."""
        step = float(self.step_s)
        decided = 2 * intervals.spacing <= step
        if not decided.any():
            return
        units = intervals.values[decided] / step
        fine = intervals.fine[decided] / step
        loose = intervals.loose[decided] / step
        single = intervals.single[decided] / step
        whole = np.rint(units)
        error = np.abs(units - whole)
        loose = np.maximum(fine, np.maximum(np.minimum(_NOISE, loose), single))
        if (error > loose).any():
            self.is_refuted = True
            return
        is_fine = error <= fine
        self.is_loose |= not is_fine.all()
        counts = np.where(np.where(is_fine, fine, loose) < 0.5, whole, 1.0)
        self.divisor = int(np.gcd.reduce(counts.astype(np.int64), initial=self.divisor))
        self.fine -= float(np.log(np.minimum(2 * fine, 1.0)).sum())
        self.loose -= float(np.log(np.minimum(2 * loose, 1.0)).sum())
        self.grain = max(self.grain, float(single.max()) * step)
        self.count += len(units)
        self.cosine += float(np.cos(2 * np.pi * (units - whole)).sum())

    def merge(self, other: "_Candidate") -> None:
        """Add the evidence of the same candidate from other sequences."""
        self.is_refuted |= other.is_refuted
        self.divisor = int(np.gcd(self.divisor, other.divisor))
        self.is_loose |= other.is_loose
        self.fine += other.fine
        self.loose += other.loose
        self.grain = max(self.grain, other.grain)
        self.count += other.count
        self.cosine += other.cosine

    @property
    def is_accepted(self) -> bool:
        """Whether the intervals are multiples of the unit, with enough evidence."""
        if self.is_refuted or not self.divisor or self.step_s * self.divisor < self.grain:
            return False
        mean = self.cosine / self.count
        is_coherent = not self.grain and mean >= _COHERENCE and self.count * mean**2 >= _EVIDENCE
        return (self.loose if self.is_loose else self.fine) >= _EVIDENCE or is_coherent


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Positive intervals in seconds, with bounds of their errors.

    Attributes:
        values: (E,) intervals.
        spacing: (E,) distance of neighbouring floats at the interval's times.
        loose: (E,) error of times that are long sums of intervals.
        single: (E,) error of times in single precision; 0 for times in double precision.
    """

    values: FloatArray
    spacing: FloatArray
    loose: FloatArray
    single: FloatArray

    @property
    def fine(self) -> FloatArray:
        """(E,) error of times that were rounded to seconds and again to the unit."""
        return _ROUNDINGS * self.spacing

    @classmethod
    def from_times(cls, times: FloatArray, seconds: float) -> "_Intervals":
        """The intervals of (E,) times in a unit of ``seconds``."""
        largest = np.abs(times).max(initial=0.0)
        with np.errstate(over="ignore"):
            singles = times.astype(np.float32)
        is_single = (singles == times).all() and (times != np.rint(times)).any()
        spacing = float(np.spacing(largest))
        single = float(np.spacing(np.float32(largest))) if is_single else 0.0
        values = np.diff(times)
        values = values[values > _ROUNDINGS * spacing]  # a smaller interval is rounding
        sizes = [
            np.full(len(values), size * seconds)
            for size in (spacing, _SUMS * spacing, _ROUNDINGS * single)
        ]
        return cls(values * seconds, *sizes)

    @classmethod
    def concatenate(cls, parts: list["_Intervals"]) -> "_Intervals":
        """The intervals of all parts, in order."""
        columns = (
            np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)
        )
        return cls(*columns)


class Clock:
    """Collects the times of sequences and estimates the coarsest tick that their intervals share.

    The tick is a whole number of 1, 0.1, 0.01, … seconds, or of such parts of a minute, an hour or
    a day, or of the same parts of the unit if the unit is no round number of seconds. The same
    events have the same tick in whatever unit their times are written.

    Args:
        seconds_per_unit: Number of seconds in one unit of the times, above 0.
    """

    def __init__(self, seconds_per_unit: float = 1.0) -> None:
        self._seconds = seconds_per_unit
        unit = Fraction(repr(float(seconds_per_unit)))
        self._candidates = {step: _Candidate(step) for step in _steps(unit)}

    def add_sequences(self, times: FloatArray, lengths: NDArray[np.integer]) -> None:
        """Add the times of S sequences.

        Args:
            times: (E,) times of all sequences, concatenated, in the source's unit; within a
                sequence not decreasing; may be negative.
            lengths: (S,) number of events in each sequence.
        """
        parts = np.split(times, np.cumsum(lengths)[:-1])
        parts = [_Intervals.from_times(part, self._seconds) for part in parts if len(part) > 1]
        if not parts:
            return
        intervals = _Intervals.concatenate(parts)
        for candidate in self._candidates.values():
            if not candidate.is_refuted:
                candidate.add(intervals)

    def state(self) -> list[list[Any]]:
        """The evidence so far, as a JSON value."""
        return [
            [
                str(candidate.step_s),
                *(getattr(candidate, field.name) for field in fields(candidate)[1:]),
            ]
            for candidate in self._candidates.values()
        ]

    def merge_state(self, state: Iterable[list[Any]]) -> None:
        """Add the evidence of another clock with the same unit: the result of its ``state``."""
        for step, *evidence in state:
            self._candidates[Fraction(step)].merge(_Candidate(Fraction(step), *evidence))

    @property
    def tick_s(self) -> float:
        """The tick in seconds; 0 if the times have no tick, or there is too little evidence."""
        for candidate in self._candidates.values():
            if candidate.is_accepted:
                return float(candidate.step_s * candidate.divisor)
        return 0.0

    @property
    def tick(self) -> float:
        """The tick in the source's unit; 0 if there is none."""
        return self.tick_s / self._seconds


def round_to_ticks(intervals: FloatArray, tick: float) -> FloatArray:
    """Remove the rounding of the times: the nearest whole numbers of ticks.

    Args:
        intervals: (E,) intervals in the source's unit.
        tick: Tick of the clock, in the same unit; 0 leaves the intervals unchanged.
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
