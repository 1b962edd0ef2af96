"""Stand-ins that have some attributes of a class, and only attributes that the class has."""

from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import TypeVar, cast

T = TypeVar("T")


def stand_in(kind: type[T], **values: object) -> T:
    """Build a stand-in of a class; a test that still has a renamed attribute fails here.

    Args:
        kind: Class of the object that is replaced.
        values: Values of its attributes.

    Raises:
        AttributeError: The class has no such attribute.
    """
    known = {*dir(kind), *kind.__init__.__code__.co_names}  # also those that __init__ assigns
    if is_dataclass(kind):
        known |= {field.name for field in fields(kind)}
    if unknown := values.keys() - known:
        raise AttributeError(f"{kind.__name__} has no attribute {', '.join(sorted(unknown))}")
    return cast(T, SimpleNamespace(**values))
