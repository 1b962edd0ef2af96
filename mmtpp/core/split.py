"""Parts of a data set: training, validation and test.

A sequence belongs to one part as a whole, by a stable hash of its id or as its file says, or it is
cut in time: training before an instant, testing after another.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
BY_TIME = "time"  # in place of a part's name: the sequence is cut in time
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
_SHORT = 2  # letters of names that say a part as a value, and nothing in the name of a file
_WORDS = re.compile(r"[A-Za-z]+")


def split_of(key: str, *, validation_fraction: float, test_fraction: float) -> str:
    """Name the split of a sequence.

    Args:
        key: of the sequence: its id, or what it shares with those that must be on its side.
        validation_fraction: share of sequences for validation, 0 to 1.
        test_fraction: share of sequences for the test, 0 to 1; the two sum to less than 1.

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


def part_of_value(value: object) -> str:
    """The part that a value of a column names, in any case: ``dev``, ``Training``.

    Returns:
        ``train``, ``validation`` or ``test``; empty where the value is no such name.
    """
    return _SYNONYMS.get(value.strip().lower(), "") if isinstance(value, str) else ""


def part_of_path(path: str) -> str:
    """The part that the name of a file, or else of a folder it lies in, says.

    Names are taken word by word, so ``train-00000-of-00002.parquet`` and ``data/test/7.csv`` say a
    part and ``trains.csv`` says none.

    Args:
        path: relative to the source, with ``/`` between folders.

    Returns:
        ``train``, ``validation`` or ``test``; empty where no name says a part, or names disagree.
    """
    words = (word.lower() for word in _WORDS.findall(path) if len(word) > _SHORT)
    found = {_SYNONYMS[word] for word in words if word in _SYNONYMS}
    return found.pop() if len(found) == 1 else ""


def instant_of(text: str, *, seconds_per_unit: float) -> float | None:
    """An instant as a setting gives it, in the source's unit.

    Args:
        text: a number in the source's unit, or an ISO date, UTC unless it says otherwise; empty
            for none.
        seconds_per_unit: seconds in one unit.

    Raises:
        ValueError: the text is neither.
    """
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.timestamp() / seconds_per_unit
    if not np.isfinite(found):
        raise ValueError(f"{text} is no instant")
    return found


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """How sequences are cut in time.

    Attributes:
        validation_from, test_from: instants in the source's unit, the same for all sequences; None
            for the instant that leaves a share of each sequence's events.
        validation_fraction, test_fraction: those shares, 0 to 1; the two sum to less than 1.
    """

    validation_from: float | None
    test_from: float | None
    validation_fraction: float
    test_fraction: float

    def cuts(self, times: NDArray[np.float64]) -> tuple[float, float]:
        """The instants at which validation and test begin in a sequence.

        Simultaneous events are never cut apart: those at an instant lie after it.

        Args:
            times: (E,) not decreasing, at least one.

        Returns:
            Two times, the first not above the second; infinite where nothing lies after.
        """
        test, num_test = self.test_from, round(len(times) * self.test_fraction)
        if test is None:
            test = float(times[-num_test]) if num_test else np.inf
        before = int(np.searchsorted(times, test, side="left"))
        validation, size = self.validation_from, round(len(times) * self.validation_fraction)
        if validation is None:
            validation = float(times[max(0, before - size)]) if size and before else test
        return min(validation, test), test


def span_of(
    part: str, wanted: str, times: NDArray[np.float64], cuts: tuple[float, float]
) -> tuple[int, int]:
    """The events of a sequence that belong to a part.

    Args:
        part: part of the whole sequence, or ``time`` where it is cut.
        wanted: ``train``, ``validation``, ``test``, or ``all`` for every event.
        times: (E,) not decreasing.
        cuts: instants at which validation and test begin; only read where it is cut.

    Returns:
        The first event and the one after the last; equal where none belongs to the part. The
        events before the first may be known when the part is scored.
    """
    if wanted == "all":
        return 0, len(times)
    if part != BY_TIME:
        return (0, len(times)) if part == wanted else (0, 0)
    edges = [0, *np.searchsorted(times, cuts, side="left").tolist(), len(times)]
    place = SPLITS.index(wanted)
    return edges[place], edges[place + 1]
