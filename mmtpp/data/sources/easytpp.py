"""EasyTPP data sets: the Gatech pickles, JSON and the rows of its Hugging Face sets.

    pickle   {"dim_process": K, "train": [[{"time_since_start": ..., "type_event": ...,
              "time_since_last_event": ...}, ...], ...]}
    rows     time_since_start, type_event, time_since_last_event as lists, dim_process; one row a
             sequence

Pickles are opened by an unpickler that knows no class but NumPy's scalars: a pickle that asks for
anything else is refused, not run.
"""

import io
import pickle
import reprlib
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mmtpp.data.sources.columns import Columns, ColumnsParser
from mmtpp.data.sources.reader import RawEvent, SourceReader, stem
from mmtpp.data.sources.tables import SUFFIXES, MalformedFileError, read_table_file, suffix_of
from mmtpp.data.sources.times import NUMBER

PARTS = ("train", "dev", "validation", "test")
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
    """Raw events of one file.

    Raises:
        MalformedFileError: unreadable, or a pickle of something else.
    """
    if suffix_of(path) == ".pkl":
        yield from _of_pickle(path, data)
    else:
        yield from _ROWS.of_table(path, read_table_file(path, data, wanted=_ROWS.columns.names))


def _of_pickle(path: str, data: bytes) -> Iterator[RawEvent]:
    tree = _load(path, data)
    parts = [name for name in PARTS if isinstance(tree.get(name), list)]
    if not parts:
        raise MalformedFileError(f"{path}: none of the keys {', '.join(PARTS)}: not of EasyTPP")
    num_types, row = tree.get("dim_process"), -1
    for part in parts:
        for index, events in enumerate(tree[part]):
            name = f"{stem(path)}#{part}-{index}"
            for event in events if isinstance(events, list) else [events]:
                row += 1
                yield replace(_raw_event(name, row, event, num_types), part=part)


def _raw_event(name: str, row: int, event: object, num_types: object) -> RawEvent:
    if not isinstance(event, dict):
        problem = "an event must be a dictionary"
        return RawEvent(name, row, None, None, None, None, _plain(event), problem)
    event = {key: _plain(value) for key, value in event.items() if isinstance(key, str)}
    kind, problem = event.get("type_event"), ""
    if isinstance(kind, int) and isinstance(num_types, int) and kind >= num_types:
        problem = f"type_event is {kind}, dim_process is {num_types}"
    return RawEvent(
        sequence=name,
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
    """Numbers as they are, the rest as bounded text: a pickle may nest without end."""
    return value if value is None or isinstance(value, int | float) else reprlib.repr(value)


class _NumberType:
    """Stands for ``numpy.dtype``, whose own state a damaged file could set to anything."""

    def __init__(self, name: str, *_: object) -> None:
        self._name, self._order = name, "="

    def __setstate__(self, state: tuple) -> None:
        self._order = state[1]

    def read(self, data: bytes) -> object:
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
        raise pickle.UnpicklingError("a NumPy scalar that is none")
    return kind.read(raw)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,  # how bytes look in old protocols
}


class _NumbersOnly(pickle._Unpickler):  # the one in C allocates what a damaged file asks for
    """Builtin containers and numbers, NumPy's among them; nothing else."""

    def find_class(self, module_name: str, global_name: str) -> object:
        found = _ALLOWED.get((module_name, global_name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}: refused")
        return found


def _load(path: str, data: bytes) -> dict:
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
    ) as error:  # what pickle's documentation says may come of damaged data
        raise MalformedFileError(f"{path}: not a readable pickle: {error!r}") from error
    if not isinstance(tree, dict):
        raise MalformedFileError(f"{path}: a dictionary expected, found {type(tree).__name__}")
    return tree


EASYTPP = SourceReader((".pkl", *SUFFIXES), parse)
