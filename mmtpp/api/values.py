"""Values in memory, from numpy, pandas or plain lists, as the columns of a sequence."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.data.sources.times import TimeFormat, Unread, read_times
from mmtpp.data.sources.types import TypeCodes
from mmtpp.storage.paths import as_uri

_ARROW_UNITS = ("s", "ms", "us", "ns")


def times_of(values: Any, *, seconds_per_unit: float, where: str) -> NDArray[np.float64]:
    """Times as numbers in a unit; dates are converted as ``load_sequences`` converts a column.

    Args:
        values: E numbers in the unit; or dates: numpy.datetime64 of any resolution, a pandas Series
            or index with or without a time zone, datetimes, or ISO texts. A date without a time
            zone is UTC.
        seconds_per_unit: seconds in one unit.
        where: name for errors.

    Returns:
        (E,) finite times. Dates count from 1970.

    Raises:
        DataError: a value that is missing or no time, by position.
    """
    listed = _listed(values, "times", where)
    if all(type(value) in (int, float) for value in listed):
        numbers: list[object] = listed
    else:
        form = TimeFormat(seconds_per_unit=seconds_per_unit)
        given = [None if _is_missing(value) else value for value in listed]
        numbers = list(read_times(given, form).values)
    for place, (value, time) in enumerate(zip(listed, numbers, strict=True)):
        problem = _problem(value, time)
        if problem:
            raise DataError(
                f"time {place} {problem}",
                where=where,
                cause="times are finite numbers in the model's unit, or dates",
            )
    return np.array(numbers, dtype=np.float64)


def _problem(value: object, time: object) -> str:
    """The problem with a time, as given and as read; empty where there is none."""
    if _is_missing(value):
        return "is missing"
    if isinstance(value, timedelta | np.timedelta64):
        return f"is a duration, {value}; divide durations by one unit of the model"
    if isinstance(time, Unread):
        return time.detail.removeprefix("time ")
    is_number = isinstance(time, int | float) and not isinstance(time, bool)
    if not is_number or not math.isfinite(time):  # pyright: ignore[reportArgumentType] # a number
        return f"is {value if value is time else time!r}"
    return ""


def types_of(values: Any, names: tuple[str, ...], *, where: str) -> NDArray[np.int16]:
    """Codes of types, as files have them.

    Args:
        values: E names or codes. Where names are whole numbers, such as "1", a number is a name.
        names: names by code, possibly empty.
        where: name for errors.

    Raises:
        DataError: a value that is neither, by position; a name that is unknown.
    """
    types = TypeCodes(names)
    codes: list[int] = []
    unknown: set[str] = set()
    for place, value in enumerate(_listed(values, "types", where)):
        code = types.code(None if _is_missing(value) else value)
        if isinstance(code, int):
            codes.append(code)
        elif not isinstance(value, str) or not value.strip():
            raise DataError(
                f"event {place} has the type {value!r}",
                where=where,
                cause="a type is a name, or its code: a whole number",
            )
        else:
            unknown.add(str(value))
    if unknown:
        raise DataError(
            f"unknown types {', '.join(sorted(unknown))}",
            where=where,
            cause=f"the model's are {', '.join(names) or 'numbers from 0 to 255'}",
        )
    return np.array(codes, dtype=np.int16)


def texts_of(values: Any, *, where: str) -> tuple[str, ...]:
    """Texts; a missing one is empty, a number is text.

    Raises:
        DataError: a value that is none of them, by position.
    """
    texts: list[str] = []
    for place, value in enumerate(_listed(values, "texts", where)):
        if _is_missing(value):
            texts.append("")
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            texts.append(str(value))
        else:
            raise DataError(
                f"event {place} has the text {value!r}",
                where=where,
                cause=f"a text is a string, not {type(value).__name__}",
            )
    return tuple(texts)


def images_of(values: Any, *, where: str) -> tuple[str | None, ...]:
    """Paths or URIs of images; None where an event has no image.

    Raises:
        DataError: a value that is none of them, by position.
    """
    images: list[str | None] = []
    for place, value in enumerate(_listed(values, "images", where)):
        if _is_missing(value):
            images.append(None)
        elif isinstance(value, str | PathLike):
            images.append(as_uri(value) or None)
        else:
            raise DataError(
                f"event {place} has the image {value!r}",
                where=where,
                cause=f"an image is a path or a URI, not {type(value).__name__}",
            )
    return tuple(images)


def check_lengths(lengths: Mapping[str, int], *, where: str) -> None:
    """Check that columns are equally long.

    Raises:
        DataError: they are not; says how many values each has.
    """
    if len(set(lengths.values())) > 1:
        raise DataError(
            ", ".join(f"{name} has {length:,} values" for name, length in lengths.items()),
            where=where,
            cause="every event has one value of each",
        )


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # NaN


def _listed(values: Any, name: str, where: str) -> list[Any]:
    """Values as Python objects: dates as datetimes, as PyArrow reads them from a file."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise DataError(f"{name} is {values!r}, not a list of values", where=where)
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        kind = values.dtype
        if isinstance(kind, np.dtype):
            values = np.asarray(values)
        elif isinstance(kind, pd.DatetimeTZDtype):
            values = pd.Series(values).dt.tz_convert(None).to_numpy()  # in UTC
        else:
            values = list(values)
    elif not isinstance(values, list | tuple) and hasattr(values, "__array__"):
        values = np.asarray(values)  # a tensor
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(f"{name} has {values.ndim} dimensions, not one", where=where)
        if values.dtype.kind == "m":
            return list(values)
        return _dates(values, name, where) if values.dtype.kind == "M" else values.tolist()
    return [_plain(value, name, where) for value in values]


def _plain(value: Any, name: str, where: str) -> Any:
    """A scalar of numpy as a Python object."""
    if isinstance(value, np.datetime64):
        return _dates(np.array([value]), name, where)[0]
    is_number = isinstance(value, np.generic) and not isinstance(value, np.timedelta64)
    return value.item() if is_number else value


def _dates(values: NDArray[np.datetime64], name: str, where: str) -> list[Any]:
    """Dates as datetimes; None for those that are missing."""
    unit, _ = np.datetime_data(values.dtype)
    finer = "ns" if unit in ("ps", "fs", "as") else "s"
    kind = f"datetime64[{unit if unit in _ARROW_UNITS else finer}]"
    try:
        return pa.array(values.astype(kind)).to_pylist()
    except (OverflowError, ValueError) as error:
        raise DataError(
            f"{name} has a date that cannot be read: {error}",
            where=where,
            cause="dates are of the years 1 to 9999",
        ) from error
