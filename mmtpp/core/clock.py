"""The clock that times were read from: its tick, found in seconds from the times of all sequences.

Times are floats, often seconds since 1970 divided by a unit, so an interval is a whole number of
ticks up to the rounding of the two times. The search knows how large that rounding may be, and
finds the same tick in whatever unit the times are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINEST = 9  # decimal digits of a second, or of the unit
_FINEST_OF_PARTS = 3  # decimal digits of a minute, an hour, a day, and of their parts
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
        is_loose: some interval fits only with the larger error.
        fine: nats by which chance is unlikely to fit all intervals with the smaller error.
        loose: the same with the larger error.
        grain: largest error of times in single precision, in seconds: a finer tick is theirs.
        count: intervals that say something about it.
        cosine: sum of the cosines of the intervals' phases.
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
        fine, loose, single = (
            each[decided] / step for each in (intervals.fine, intervals.loose, intervals.single)
        )
        whole = np.rint(units)
        apart = np.abs(units - whole)
        loose = np.maximum(fine, np.maximum(np.minimum(_NOISE, loose), single))
        if (apart > loose).any():
            self.is_refuted = True
            return
        is_fine = apart <= fine
        self.is_loose |= not is_fine.all()
        found = np.where(np.where(is_fine, fine, loose) < 0.5, whole, 1.0)
        self.divisor = int(np.gcd.reduce(found.astype(np.int64), initial=self.divisor))
        self.fine -= float(np.log(np.minimum(2 * fine, 1.0)).sum())
        self.loose -= float(np.log(np.minimum(2 * loose, 1.0)).sum())
        self.grain = max(self.grain, float(single.max()) * step)
        self.count += len(units)
        self.cosine += float(np.cos(2 * np.pi * (units - whole)).sum())

    def join(self, other: "_Candidate") -> None:
        """Add the counts of the same candidate for other sequences."""
        self.is_refuted |= other.is_refuted
        self.divisor = int(np.gcd(self.divisor, other.divisor))
        self.is_loose |= other.is_loose
        self.fine += other.fine
        self.loose += other.loose
        self.grain = max(self.grain, other.grain)
        self.count += other.count
        self.cosine += other.cosine

    @property
    def is_found(self) -> bool:
        """Whether the intervals are multiples of the unit, and not by chance."""
        if self.is_refuted or not self.divisor or self.step_s * self.divisor < self.grain:
            return False
        mean = self.cosine / self.count
        is_coherent = not self.grain and mean >= _COHERENCE and self.count * mean**2 >= _EVIDENCE
        return (self.loose if self.is_loose else self.fine) >= _EVIDENCE or is_coherent


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Positive intervals in seconds, and how exact they are.

    Attributes:
        values: (E,) intervals.
        spacing: (E,) distance of neighbouring floats at the times around each.
        loose: (E,) error of times that are long sums of intervals.
        single: (E,) error of times in single precision; 0 where they are not.
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
    def of(cls, times: FloatArray, seconds: float) -> "_Intervals":
        """The intervals of (E,) times in a unit of ``seconds``."""
        largest = np.abs(times).max(initial=0.0)
        with np.errstate(over="ignore"):
            singles = times.astype(np.float32)
        is_single = (singles == times).all() and (times != np.rint(times)).any()
        spacing = float(np.spacing(largest))
        single = float(np.spacing(np.float32(largest))) if is_single else 0.0
        values = np.diff(times)
        values = values[values > _ROUNDINGS * spacing]  # less is rounding
        sizes = [
            np.full(len(values), size * seconds)
            for size in (spacing, _SUMS * spacing, _ROUNDINGS * single)
        ]
        return cls(values * seconds, *sizes)


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
        self._add([_Intervals.of(times, self._seconds)])

    def add(self, intervals: FloatArray) -> None:
        """Take intervals into account whose times are not known.

        Args:
            intervals: (E,) in the source's unit, none negative. They may be off by 0.001 ticks.
        """
        values = intervals[intervals > 1e-12 * intervals.max(initial=0.0)] * self._seconds
        spacing = np.spacing(values)
        loose = np.full(len(values), np.inf)
        self._add([_Intervals(values, spacing, loose, np.zeros(len(values)))])

    def add_sequences(self, times: FloatArray, lengths: NDArray[np.integer]) -> None:
        """Take S sequences into account at once.

        Args:
            times: (E,) of all sequences, one after the other, in the source's unit.
            lengths: (S,) events of each sequence.
        """
        parts = np.split(times, np.cumsum(lengths)[:-1])
        self._add([_Intervals.of(part, self._seconds) for part in parts if len(part) > 1])

    def _add(self, parts: list[_Intervals]) -> None:
        if not parts:
            return
        names = ("values", "spacing", "loose", "single")
        every = _Intervals(
            *(np.concatenate([getattr(each, name) for each in parts]) for name in names)
        )
        for candidate in self._candidates.values():
            if not candidate.is_refuted:
                candidate.add(every)

    def state(self) -> list[list[Any]]:
        """What was collected, as a JSON value."""
        return [
            [str(each.step_s), *(getattr(each, field.name) for field in fields(each)[1:])]
            for each in self._candidates.values()
        ]

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
