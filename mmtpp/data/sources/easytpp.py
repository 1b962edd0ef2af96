"""EasyTPP data sets: pickles, JSON, and rows of the data sets on Hugging Face.

    pickle   {"dim_process": K, "train": [[{"time_since_start": ..., "type_event": ...,
              "time_since_last_event": ...}, ...], ...]}
    rows     time_since_start, type_event, time_since_last_event as lists, dim_process; a row is a
             sequence

Pickles are opened by an unpickler that knows no class except NumPy's scalars. A pickle that asks
for any other object is refused; its code is never run.
"""

import io
import pickle
import reprlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from types import FunctionType

import numpy as np

from mmtpp.core.errors import without_addresses
from mmtpp.core.times.time_format import NUMBER
from mmtpp.data.sources.columns import Columns, ColumnsParser
from mmtpp.data.sources.event_files import MalformedFileError, stem, suffix_of
from mmtpp.data.sources.reader import RawEvent, SourceReader, malformed_event
from mmtpp.data.sources.tables import SUFFIXES, read_table_file

SPLIT_KEYS = ("train", "dev", "validation", "test")
_ROWS = ColumnsParser(
    Columns(
        time="time_since_start",
        time_format=NUMBER,
        type="type_event",
        interval="time_since_last_event",
    ),
    seconds_per_unit=1.0,
    optional=("time_since_last_event",),
)


def parse(path: str, data: bytes) -> Iterator[RawEvent]:
    """Parse the raw events of one file.

    Raises:
        MalformedFileError: The file is unreadable, or a pickle without EasyTPP's keys.
    """
    if suffix_of(path) == ".pkl":
        yield from _parse_pickle(path, data)
    else:
        table = read_table_file(path, data, wanted=_ROWS.columns.names)
        yield from _ROWS.parse_table(path, table)


def _parse_pickle(path: str, data: bytes) -> Iterator[RawEvent]:
    tree = _load_pickle(path, data)
    splits = [name for name in SPLIT_KEYS if isinstance(tree.get(name), list)]
    if not splits:
        raise MalformedFileError(
            f"{path}: none of the keys {', '.join(SPLIT_KEYS)}: not a data set of EasyTPP"
        )
    num_types, row = tree.get("dim_process"), -1
    for split in splits:
        for index, events in enumerate(tree[split]):
            sequence = f"{stem(path)}#{split}-{index}"
            for event in events if isinstance(events, list) else [events]:
                row += 1
                yield replace(_raw_event(sequence, row, event, num_types), split=split)


def _raw_event(sequence: str, row: int, event: object, num_types: object) -> RawEvent:
    if not isinstance(event, dict):
        problem = "an event must be a dictionary"
        return malformed_event(sequence, row, _plain(event), problem)
    event = {key: _plain(value) for key, value in event.items() if isinstance(key, str)}
    kind, problem = event.get("type_event"), None
    if isinstance(kind, int) and isinstance(num_types, int) and kind >= num_types:
        problem = f"type_event is {kind}, dim_process is {num_types}"
    return RawEvent(
        sequence=sequence,
        row=row,
        time=event.get("time_since_start"),
        type=kind,
        text="",
        image=None,
        record=event,
        problem=problem,
        interval=event.get("time_since_last_event"),
    )


def _plain(value: object) -> object:
    """Numbers unchanged, any other value as short text, because a pickle may nest endlessly."""
    return value if value is None or isinstance(value, int | float) else _ShortRepr().repr(value)


class _ShortRepr(reprlib.Repr):
    """Short texts of values, without addresses of objects, which differ between runs."""

    def repr_instance(self, x: object, level: int) -> str:
        """Text of a value that is no builtin container, number or string."""
        if isinstance(x, _NumberType | FunctionType):
            return f"<{type(x).__name__}>"
        return super().repr_instance(x, level)


class _NumberType:
    """Safe replacement of ``numpy.dtype``, whose state a damaged file could set to anything."""

    def __init__(self, name: str, *_: object) -> None:
        self._name, self._order = name, "="

    def __setstate__(self, state: tuple) -> None:
        self._order = state[1]

    def read(self, data: bytes) -> object:
        """Read a scalar of this type."""
        if self._name not in _NUMBER_TYPES or self._order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"a NumPy scalar of type {self._name!r}")
        dtype = np.dtype(self._name).newbyteorder(self._order)
        if len(data) != dtype.itemsize:
            raise pickle.UnpicklingError("a NumPy scalar of the wrong size")
        return np.frombuffer(data, dtype=dtype)[0].item()


_NUMBER_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def _scalar(kind: object, data: object) -> object:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(kind, _NumberType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("an invalid NumPy scalar")
    return kind.read(raw)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,  # old protocols write bytes in this way
}


class _NumbersOnly(
    pickle._Unpickler
):  # the unpickler in C allocates any size that a damaged file asks for
    """Unpickler of builtin containers and numbers, including NumPy's scalars."""

    def find_class(self, module_name: str, global_name: str) -> object:
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}: refused")
        return allowed


def _load_pickle(path: str, data: bytes) -> dict:
    try:
        # latin1: the original files were written by Python 2
        tree = _NumbersOnly(io.BytesIO(data), encoding="latin1").load()
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RecursionError,
        SyntaxError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:  # errors that damaged data may cause, according to the documentation of pickle
        problem = without_addresses(repr(error))
        raise MalformedFileError(f"{path}: not a readable pickle: {problem}") from error
    if not isinstance(tree, dict):
        raise MalformedFileError(f"{path}: a dictionary expected, not {type(tree).__name__}")
    return tree


EASYTPP = SourceReader((".pkl", *SUFFIXES), parse)
