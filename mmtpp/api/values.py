"""Values of numpy, pandas or plain lists, converted to the columns of a sequence."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.errors import DataError
from mmtpp.data.sources.decimals import plain_number
from mmtpp.data.sources.times import InvalidValue, TimeFormat, read_times
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.storage.paths import as_uri

_ARROW_UNITS = ("s", "ms", "us", "ns")


def to_times(values: Any, *, seconds_per_unit: float, where: str) -> NDArray[np.float64]:
    """Convert times to numbers in a time unit; dates like ``load_sequences`` converts a column.

    Args:
        values: (E,) numbers in the time unit; or dates: numpy.datetime64 of any resolution, a
            pandas Series or index with or without a time zone, datetimes, or ISO texts. A date
            without a time zone is UTC.
        seconds_per_unit: Length of one time unit, in seconds.
        where: Name of the sequence, for errors.

    Returns:
        (E,) finite times. Dates count from 1970.

    Raises:
        DataError: A value is missing or is not a time; the message names its position.
    """
    listed = _listed(values, "times", where)
    if all(type(value) in (int, float) for value in listed):
        numbers: list[object] = listed
    else:
        time_format = TimeFormat(seconds_per_unit=seconds_per_unit)
        present = [None if _is_missing(value) else value for value in listed]
        numbers = list(read_times(present, time_format).values)
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
    """Message about a value that is not a time; empty for a valid time.

    Args:
        value: The value that the user passed.
        time: The converted value.
    """
    if _is_missing(value):
        return "is missing"
    if isinstance(value, timedelta | np.timedelta64):
        return f"is a duration, {value}; divide durations by one time unit of the model"
    if isinstance(time, InvalidValue):
        return time.detail.removeprefix("time ")
    is_number = isinstance(time, int | float) and not isinstance(time, bool)
    if not is_number or not math.isfinite(time):  # pyright: ignore[reportArgumentType] # a number
        return f"is {value if value is time else time!r}"
    return ""


def to_types(values: Any, names: tuple[str, ...], *, where: str) -> NDArray[np.int16]:
    """Convert names or codes of types to codes, like a file reader.

    Args:
        values: (E,) names or codes. If names are whole numbers, such as "1", a number is a name.
        names: Names of the types by code; empty if types have no names.
        where: Name of the sequence, for errors.

    Raises:
        DataError: A value is neither a name nor a code (the message names its position), or a name
            is unknown.
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
            cause=f"the types of the model are {', '.join(names) or 'numbers from 0 to 255'}",
        )
    return np.array(codes, dtype=np.int16)


def to_texts(values: Any, *, where: str) -> tuple[str, ...]:
    """Convert values to texts: a missing value to an empty text, a number to its digits.

    Raises:
        DataError: A value is not a text; the message names its position.
    """
    texts: list[str] = []
    for place, value in enumerate(map(plain_number, _listed(values, "texts", where))):
        if _is_missing(value):
            texts.append("")
        elif isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
            texts.append(str(value))
        else:
            raise DataError(
                f"event {place} has the text {value!r}",
                where=where,
                cause=f"a text is a string, not {type(value).__name__}",
            )
    return tuple(texts)


def to_images(values: Any, *, where: str) -> tuple[str | None, ...]:
    """Convert values to paths or URIs of images; None if an event has no image.

    Raises:
        DataError: A value is not a path; the message names its position.
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
    """Check that all columns have the same length.

    Args:
        lengths: Length of each column, by name.
        where: Name of the sequence, for errors.

    Raises:
        DataError: The lengths differ; the message lists them.
    """
    if len(set(lengths.values())) > 1:
        raise DataError(
            ", ".join(f"{name} has {length:,} values" for name, length in lengths.items()),
            where=where,
            cause="every event has one value in each column",
        )


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # NaN


def _listed(values: Any, name: str, where: str) -> list[Any]:
    """Values as Python objects; dates as datetimes, like PyArrow reads them from a file."""
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
    """Convert a scalar of numpy to a Python object."""
    if isinstance(value, np.datetime64):
        return _dates(np.array([value]), name, where)[0]
    is_number = isinstance(value, np.generic) and not isinstance(value, np.timedelta64)
    return value.item() if is_number else value


def _dates(values: NDArray[np.datetime64], name: str, where: str) -> list[Any]:
    """Convert dates to datetimes, and missing dates to None."""
    unit, _ = np.datetime_data(values.dtype)
    finer = "ns" if unit in ("ps", "fs", "as") else "s"
    kind = f"datetime64[{unit if unit in _ARROW_UNITS else finer}]"
    try:
        return pa.array(values.astype(kind)).to_pylist()
    except (OverflowError, ValueError) as error:
        raise DataError(
            f"{name} has a date that cannot be read: {error}",
            where=where,
            cause="only the years 1 to 9999 are supported",
        ) from error
