"""Codes of event types, which files write as names or as numbers from 0."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmtpp.core.events import MAX_TYPES
from mmtpp.data.sources.decimals import plain_number
from mmtpp.data.sources.reader import InvalidValue

AUTO = "auto"  # value of source.types: take the names that occur
OTHER = "other"  # the type that rare types are folded into
RARE = -1  # code of a rare type before it is folded
_WHOLE = re.compile(r"(\d+)(?:\.0+)?", re.ASCII)
_SHOWN = 10


@dataclass(frozen=True)
class TypeCodes:
    """Codes of the types of a source, by name.

    A value has the same code in every file format: the integer 3, the text "3" and the decimal 3.0
    are the same value. If one of the names is a whole number, all values are names. Otherwise
    whole numbers are positions in the list of names, from 0.

    Attributes:
        names: Names in the order of their codes; empty where types are numbers from 0 to 255.
        folds_rare: Whether types without a name become ``other``, which must be one of the names.
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
        """Number of possible codes."""
        return len(self.names) or MAX_TYPES

    def code(self, value: object) -> int | InvalidValue:
        """The code of a value; ``RARE`` for a type to be folded; the reason for an invalid value.

        Args:
            value: Type as the file has it.
        """
        if isinstance(value, str) and value in self.codes:
            return self.codes[value]
        value = plain_number(value)
        name = type_name(value)
        if name is None:
            is_missing = value is None or value != value or isinstance(value, str)
            cause = "missing_type" if is_missing else "unreadable_type"
            return InvalidValue(cause, f"type is {value!r}"[:200])
        if name in self.codes:
            return self.codes[name]
        if name.isdecimal() and not self.are_numbers and len(name) < 10 and int(name) < self.count:
            return int(name)
        if self.folds_rare:
            return RARE
        return self._unknown_type(value, name)

    def _unknown_type(self, value: object, name: str) -> InvalidValue:
        if self.names:
            return InvalidValue(
                "unknown_type",
                f"type is {value!r}; the names are {list_some(self.names)} (source.types)",
            )
        if name.isdecimal():
            return InvalidValue(
                "unknown_type",
                f"type is {value!r}; without names types are numbers from 0 to {MAX_TYPES - 1}; "
                f'set source.types = "{AUTO}" to read numbers as names',
            )
        return InvalidValue(
            "unnamed_type",
            f'type is {value!r}, a name; set source.types = "{AUTO}", or list the names',
        )


def type_name(value: object) -> str | None:
    """The name of a type in any file format; None for a value that is not a type.

    Whole numbers are written without decimals. A column of integers with gaps, which some formats
    turn into decimals, therefore has the same names.
    """
    value = plain_number(value)
    if isinstance(value, str):
        text = value.strip()
        whole = _WHOLE.fullmatch(text)
        return whole[1] if whole else text or None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else None
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e18 else None
    return None


def order_names(
    counts: Mapping[str, int], *, known: Sequence[str] = (), folds_rare: bool = False
) -> tuple[str, ...]:
    """Order type names by their codes: known names first, then by decreasing frequency.

    Args:
        counts: Number of events of each name.
        known: Names of an existing store, which keep their codes.
        folds_rare: If there are more than 256 names, keep the most frequent and let ``other``
            stand for all others; False keeps every name.
    """
    by_frequency = sorted(counts, key=lambda name: (-counts[name], name))
    names = [*known, *(name for name in by_frequency if name not in set(known))]
    if not folds_rare or len(names) <= MAX_TYPES:
        return tuple(names)
    kept = names[: max(len(known), MAX_TYPES)]
    if OTHER not in kept:
        kept = [*kept[: MAX_TYPES - 1], OTHER]
    return tuple(kept)


def count_names(values: Iterable[object]) -> Counter[str]:
    """Number of events of each name. Invalid values are skipped, because they are rejected later.

    Args:
        values: Types as the file has them.
    """
    return Counter(name for name in map(type_name, values) if name is not None)


def are_named(names: Iterable[str]) -> bool:
    """Whether types are names: at least one is not a whole number."""
    return any(not name.isdecimal() for name in names)


def list_some(names: Sequence[str]) -> str:
    """The first names and the number of further names, for messages."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + more
