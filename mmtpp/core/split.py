"""Splits of a data set: training, validation and test.

A whole sequence belongs to one split, by a stable hash of its id or by the name of its file; or
every sequence is cut in time, with training before an instant and testing after another.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
BY_TIME = "time"  # in place of a split's name: the sequence is cut in time
_SYNONYMS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(
        (
            "validation",
            "validate",
            "valid",
            "val",
            "dev",
            "devel",
            "development",
            "eval",
            "evaluation",
        ),
        "validation",
    ),
    **dict.fromkeys(("test", "testing", "tst", "te"), "test"),
}
_SHORT = 2  # letters of names that count as a value of a column, but not in the name of a file
_WORDS = re.compile(r"[A-Za-z]+")


def split_from_key(key: str, *, validation_fraction: float, test_fraction: float) -> str:
    """Choose the split of a sequence by a hash.

    Args:
        key: Id of the sequence, or of the group of sequences that must be in the same split.
        validation_fraction: Share of sequences for validation, 0 to 1.
        test_fraction: Share of sequences for the test, 0 to 1; both sum to less than 1.

    Returns:
        ``train``, ``validation`` or ``test``; the same on every machine and in every run.
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    if position < test_fraction + validation_fraction:
        return "validation"
    return "train"


def split_from_value(value: object) -> str:
    """The split that a value of a column names, in upper or lower case: ``dev``, ``Training``.

    Returns:
        ``train``, ``validation`` or ``test``; empty if the value is no such name.
    """
    return _SYNONYMS.get(value.strip().lower(), "") if isinstance(value, str) else ""


def split_from_path(path: str) -> str:
    """The split that the name of a file or of its folders contains.

    Names are read word by word: ``train-00000-of-00002.parquet`` and ``data/test/7.csv`` name a
    split, ``trains.csv`` does not.

    Args:
        path: Path relative to the source, with ``/`` between folders.

    Returns:
        ``train``, ``validation`` or ``test``; empty if no word names a split, or words disagree.
    """
    words = (word.lower() for word in _WORDS.findall(path) if len(word) > _SHORT)
    splits = {_SYNONYMS[word] for word in words if word in _SYNONYMS}
    return splits.pop() if len(splits) == 1 else ""


def parse_instant(text: str, *, seconds_per_unit: float) -> float | None:
    """Parse an instant in a setting.

    Args:
        text: A number in the source's unit, or an ISO date, in UTC unless it has a time zone; empty
            for no instant.
        seconds_per_unit: Number of seconds in one unit.

    Returns:
        The instant in the source's unit; None for an empty text.

    Raises:
        ValueError: The text is neither a number nor a date.
    """
    if not text:
        return None
    try:
        instant = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.timestamp() / seconds_per_unit
    if not np.isfinite(instant):
        raise ValueError(f"{text} is not a finite instant")
    return instant


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """How sequences are cut in time.

    Attributes:
        validation_from, test_from: Instants in the source's unit, the same for all sequences. None
            chooses an instant for every sequence, by its share of events.
        validation_fraction, test_fraction: These shares, 0 to 1; both sum to less than 1.
    """

    validation_from: float | None
    test_from: float | None
    validation_fraction: float
    test_fraction: float

    def cuts(self, times: NDArray[np.float64]) -> tuple[float, float]:
        """The instants at which validation and test begin in a sequence.

        Simultaneous events stay together: events at an instant come after the cut.

        Args:
            times: (E,) times, not decreasing, at least one.

        Returns:
            Two instants, the first not above the second; infinite if no event comes after.
        """
        test, num_test = self.test_from, round(len(times) * self.test_fraction)
        if test is None:
            test = float(times[-num_test]) if num_test else np.inf
        num_before = int(np.searchsorted(times, test, side="left"))
        validation, size = self.validation_from, round(len(times) * self.validation_fraction)
        if validation is None:
            has_validation = size and num_before
            validation = float(times[max(0, num_before - size)]) if has_validation else test
        return min(validation, test), test


def events_of_split(
    sequence_split: str, wanted: str, times: NDArray[np.float64], cuts: tuple[float, float]
) -> tuple[int, int]:
    """The events of a sequence that belong to a split.

    Args:
        sequence_split: Split of the whole sequence, or ``time`` if the sequence is cut in time.
        wanted: ``train``, ``validation`` or ``test``, or ``all`` for every event.
        times: (E,) times, not decreasing.
        cuts: Instants at which validation and test begin; only read if the sequence is cut in time.

    Returns:
        The index of the first event and the index after the last; equal if no event belongs to the
        split. When the split is scored, earlier events may be known.
    """
    if wanted == "all":
        return 0, len(times)
    if sequence_split != BY_TIME:
        return (0, len(times)) if sequence_split == wanted else (0, 0)
    edges = [0, *np.searchsorted(times, cuts, side="left").tolist(), len(times)]
    index = SPLITS.index(wanted)
    return edges[index], edges[index + 1]
