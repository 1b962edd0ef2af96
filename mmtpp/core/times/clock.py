"""The clock that times were read from: its tick, estimated from the times of all sequences.

Times are floats, often seconds since 1970 divided by a unit. So an interval is a whole number of
ticks, up to the rounding of its two times. The search bounds this rounding, works in seconds, and
finds the same tick in whatever unit the times are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
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
_HEAD = 512  # intervals that are tried first: they refute nearly every wrong unit
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
        count: Number of intervals in ``cosine``.
        cosine: Sum of the cosines of the intervals' phases; intervals are no longer added when
            ``loose`` is enough evidence, because both kinds of evidence then are.
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
        if not _Phases.from_intervals(intervals.head(), step).fit:
            self.is_refuted = True
            return
        phases = _Phases.from_intervals(intervals, step)
        if phases.fit:
            self._count(phases)
        else:
            self.is_refuted = True

    def _count(self, phases: "_Phases") -> None:
        is_fine = phases.error <= np.repeat(phases.fine, phases.lengths)
        self.is_loose |= not is_fine.all()
        if self.divisor != 1:
            fine, loose = (
                np.repeat(bound < 0.5, phases.lengths) for bound in (phases.fine, phases.loose)
            )
            counts = np.where(np.where(is_fine, fine, loose), phases.whole, 1.0)
            self.divisor = int(np.gcd.reduce(counts.astype(np.int64), initial=self.divisor))
        self.fine += phases.evidence(phases.fine)
        self.loose += phases.evidence(phases.loose)
        self.grain = max(self.grain, float(phases.single.max(initial=0.0)) * float(self.step_s))
        if self.loose < _EVIDENCE:
            self.count += len(phases.error)
            self.cosine += float(np.cos(2 * np.pi * phases.error).sum())

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
        if (self.loose if self.is_loose else self.fine) >= _EVIDENCE:
            return True
        mean = self.cosine / max(1, self.count)
        return not self.grain and mean >= _COHERENCE and self.count * mean**2 >= _EVIDENCE


@dataclass(frozen=True, slots=True)
class _Intervals:
    """E positive intervals in seconds, with bounds of their errors by sequence.

    S sequences have at least one such interval.

    Attributes:
        values: (E,) intervals, one sequence after the other.
        lengths: (S,) number of intervals of each sequence.
        spacing: (S,) distance of neighbouring floats at the sequence's largest time.
        loose: (S,) error of times that are long sums of intervals.
        single: (S,) error of times in single precision; 0 for times in double precision.
    """

    values: FloatArray
    lengths: NDArray[np.int64]
    spacing: FloatArray
    loose: FloatArray
    single: FloatArray

    @classmethod
    def from_sequences(cls, sequences: Iterable[FloatArray], seconds: float) -> "_Intervals":
        """The intervals of sequences of times in a unit of ``seconds``."""
        values: list[FloatArray] = []
        sizes: list[tuple[float, float]] = []
        for times in sequences:
            largest = np.abs(times).max(initial=0.0)
            with np.errstate(over="ignore"):
                singles = times.astype(np.float32)
            is_single = (singles == times).all() and (times != np.rint(times)).any()
            spacing = float(np.spacing(largest))
            single = float(np.spacing(np.float32(largest))) if is_single else 0.0
            intervals = np.diff(times)
            intervals = intervals[intervals > _ROUNDINGS * spacing]  # a smaller one is rounding
            if len(intervals):
                values.append(intervals)
                sizes.append((spacing, single))
        spacing, single = np.array(sizes, dtype=np.float64).reshape(-1, 2).T
        lengths = np.array([len(part) for part in values], dtype=np.int64)
        return cls(
            np.concatenate([np.zeros(0), *values]) * seconds,
            lengths,
            spacing * seconds,
            _SUMS * spacing * seconds,
            _ROUNDINGS * single * seconds,
        )

    @property
    def fine(self) -> FloatArray:
        """(S,) error of times that were rounded to seconds and again to the unit."""
        return _ROUNDINGS * self.spacing

    def head(self) -> "_Intervals":
        """The first ``_HEAD`` intervals, or fewer."""
        ends = np.minimum(np.cumsum(self.lengths), _HEAD)
        return replace(self, values=self.values[:_HEAD], lengths=np.diff(ends, prepend=0))

    def exact_to(self, step: float) -> "_Intervals":
        """The intervals of the sequences that are exact enough to test a unit.

        Args:
            step: The unit, in seconds.
        """
        is_exact = 2 * self.spacing <= step
        if is_exact.all():
            return self
        return _Intervals(
            self.values[np.repeat(is_exact, self.lengths)],
            self.lengths[is_exact],
            self.spacing[is_exact],
            self.loose[is_exact],
            self.single[is_exact],
        )


@dataclass(frozen=True, slots=True)
class _Phases:
    """D intervals of S sequences, counted in a unit that they are exact enough to test.

    Attributes:
        whole: (D,) the nearest whole numbers.
        error: (D,) distances from them.
        lengths: (S,) number of intervals of each sequence.
        fine: (S,) bounds of the error of times that were rounded twice.
        loose: (S,) bounds of the error of times that are sums, or in single precision; at least
            ``fine``.
        single: (S,) bounds of the error of single precision; 0 in double precision.
    """

    whole: FloatArray
    error: FloatArray
    lengths: NDArray[np.int64]
    fine: FloatArray
    loose: FloatArray
    single: FloatArray

    @classmethod
    def from_intervals(cls, intervals: _Intervals, step: float) -> "_Phases":
        """Count intervals in a unit of ``step`` seconds."""
        exact = intervals.exact_to(step)
        units = exact.values / step
        whole = np.rint(units)
        fine, single = exact.fine / step, exact.single / step
        loose = np.maximum(fine, np.maximum(np.minimum(_NOISE, exact.loose / step), single))
        return cls(whole, np.abs(units - whole), exact.lengths, fine, loose, single)

    @property
    def fit(self) -> bool:
        """Whether every interval is a whole number of units, up to rounding."""
        return bool((self.error <= np.repeat(self.loose, self.lengths)).all())

    def evidence(self, bound: FloatArray) -> float:
        """Nats against a fit by coincidence, for (S,) bounds of the error."""
        return -float((self.lengths * np.log(np.minimum(2 * bound, 1.0))).sum())


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
        sequences = np.split(times, np.cumsum(lengths)[:-1])
        intervals = _Intervals.from_sequences(sequences, self._seconds)
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
