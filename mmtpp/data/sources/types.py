"""Event types as files write them: names, or numbers from 0."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from mmtpp.core.events import MAX_TYPES

AUTO = "auto"  # source.types: the names that occur
OTHER = "other"  # the type that rare types are folded into
_WHOLE = re.compile(r"(\d+)(?:\.0+)?", re.ASCII)
_SHOWN = 10


class Refused(NamedTuple):
    """Why a value is no type: a fixed phrase, and what exactly was wrong."""

    cause: str
    detail: str


@dataclass(frozen=True)
class TypeCodes:
    """Codes of the types of a source, by name.

    The same value has the same code in every file format: the integer 3, the text "3" and the
    decimal 3.0 are one value. Where one of the names is a whole number, all values are names;
    otherwise whole numbers are positions in the list of names, from 0.

    Attributes:
        names: In the order of their codes; empty where types are numbers from 0 to 255.
        folds_rare: Types without a name become ``other``, which must be one of the names.
    """

    names: tuple[str, ...]
    folds_rare: bool = False
    codes: Mapping[str, int] = field(init=False, repr=False, compare=False)
    are_numbers: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", {name: code for code, name in enumerate(self.names)})
        are_numbers = any(_WHOLE.fullmatch(name) for name in self.names)
        object.__setattr__(self, "are_numbers", are_numbers)

    @property
    def count(self) -> int:
        """Number of codes that are possible."""
        return len(self.names) or MAX_TYPES

    def code(self, value: object) -> int | Refused:
        """The code of a value, -1 for a rare type that is folded, or why there is none."""
        if isinstance(value, str) and value in self.codes:
            return self.codes[value]
        text = name_of(value)
        if text is None:
            is_missing = value is None or value != value or isinstance(value, str)
            cause = "missing_type" if is_missing else "unreadable_type"
            return Refused(cause, f"type is {value!r}"[:200])
        if text in self.codes:
            return self.codes[text]
        if text.isdecimal() and not self.are_numbers and len(text) < 10 and int(text) < self.count:
            return int(text)
        if self.folds_rare:
            return -1
        return self._unknown(value, text)

    def _unknown(self, value: object, text: str) -> Refused:
        if self.names:
            return Refused(
                "unknown_type",
                f"type is {value!r}; the names are {listed(self.names)} (source.types)",
            )
        if text.isdecimal():
            return Refused(
                "unknown_type",
                f"type is {value!r}; without names types are numbers from 0 to {MAX_TYPES - 1}; "
                f'set source.types = "{AUTO}" to take them for names',
            )
        return Refused(
            "unnamed_type",
            f'type is {value!r}, a name; set source.types = "{AUTO}", or list the names',
        )


def name_of(value: object) -> str | None:
    """A value of any format as a name; None for one that is no type.

    Whole numbers are written without decimals, so that a column of integers with gaps, which some
    formats make decimals of, has the same names.
    """
    if isinstance(value, str):
        text = value.strip()
        whole = _WHOLE.fullmatch(text)
        return whole[1] if whole else text or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else None
    if isinstance(value, Decimal) and value.is_finite():
        value = float(value)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e18 else None
    return None


def most_frequent(
    counts: Mapping[str, int], *, known: Sequence[str] = (), folds_rare: bool = False
) -> tuple[str, ...]:
    """Names of types in the order of their codes: those known before, then by falling frequency.

    Args:
        counts: Events of each name.
        known: Names that keep their codes, of a store that is extended.
        folds_rare: Keep the most frequent and let ``other`` stand for the rest where there are
            more than 256; every name otherwise.
    """
    order = sorted(counts, key=lambda name: (-counts[name], name))
    names = [*known, *(name for name in order if name not in set(known))]
    if not folds_rare or len(names) <= MAX_TYPES:
        return tuple(names)
    kept = names[: max(len(known), MAX_TYPES)]
    if OTHER not in kept:
        kept = [*kept[: MAX_TYPES - 1], OTHER]
    return tuple(kept)


def count_names(values: Iterable[object]) -> Counter[str]:
    """Events of each name; values that are no type are left to be refused later."""
    return Counter(name for name in map(name_of, values) if name is not None)


def are_named(names: Iterable[str]) -> bool:
    """Whether types are names: one of them is no whole number."""
    return any(not name.isdecimal() for name in names)


def listed(names: Sequence[str]) -> str:
    """The first of many names, for messages."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + more
