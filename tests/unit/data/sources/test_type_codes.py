"""The same value is the same type, whatever the file format."""

import io
import json
from decimal import Decimal

import pandas as pd
import pytest

from mmtpp.core.errors import DataError
from mmtpp.data.encode.type_names import choose_type_names, unnamed_types_error
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import InvalidValue, ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes, order_names, type_name

COLUMNS = Columns(time="t", type="k")


def _formats(values: list) -> dict[str, bytes]:
    """The same rows in every format."""
    rows = [{"t": float(place), "k": value} for place, value in enumerate(values)]
    table = pd.DataFrame(rows)
    parquet = io.BytesIO()
    table.to_parquet(parquet)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return {
        "t.csv": table.to_csv(index=False).encode(),
        "t.tsv": table.to_csv(index=False, sep="\t").encode(),
        "t.jsonl": lines,
        "t.json": json.dumps(rows).encode(),
        "t.parquet": parquet.getvalue(),
    }


def _parse(path: str, data: bytes, types: TypeCodes) -> ParsedFile:
    return read_file(build_reader("columns", columns=COLUMNS), path, data, types=types)


def _read_in_every_format(values: list, types: TypeCodes) -> list[tuple[list[int], list[str]]]:
    """Codes and causes of rejection in each format."""
    parsed_files = [_parse(path, data, types) for path, data in _formats(values).items()]
    return [
        (
            parsed.sequences[0].types.tolist() if parsed.sequences else [],
            [record.cause for record in parsed.rejected],
        )
        for parsed in parsed_files
    ]


@pytest.mark.parametrize(
    ("names", "values", "codes", "causes"),
    [
        # integers that are named are names, not positions
        (("1", "2", "3"), [1, 2, 3, 1], [0, 1, 2, 0], []),
        (("4624", "4625"), [4625, 4624, 7], [1, 0], ["unknown_type"]),
        # names that are no numbers: integers are positions
        (("pump", "valve"), [0, 1, 2], [0, 1], ["unknown_type"]),
        (("pump", "valve"), ["valve", "pump", "other"], [1, 0], ["unknown_type"]),
        # without names
        ((), [0, 255, 256], [0, 255], ["unknown_type"]),
        ((), ["pump"], [], ["unnamed_type"]),
    ],
)
def test_every_format_gives_the_same_types(names, values, codes, causes):
    for actual in _read_in_every_format(values, TypeCodes(names)):
        assert actual == (codes, causes)


def test_integers_with_gaps_which_become_decimals_keep_their_names():
    for codes, causes in _read_in_every_format([1, 2, None, 3], TypeCodes(("1", "2", "3"))):
        assert (codes, causes) == ([0, 1, 2], ["missing_type"])


def test_names_of_values():
    assert [type_name(v) for v in (3, 3.0, "3", " 3.0 ", Decimal(3))] == ["3", "3", "3", "3", "3"]
    assert [type_name(Decimal(text)) for text in ("3.00", "9007199254740993", "0E+2")] == [
        "3",
        "9007199254740993",  # no float has this value
        "0",
    ]
    assert [type_name(Decimal(text)) for text in ("1.5", "NaN", "sNaN", "Infinity")] == [None] * 4
    assert TypeCodes(()).code(Decimal("sNaN")) == InvalidValue("missing_type", "type is nan")
    assert [type_name(v) for v in (True, "007", "1.5")] == ["true", "007", "1.5"]
    assert [type_name(v) for v in (None, "", " ", float("nan"), 1.7, [1])] == [None] * 6


def test_rare_types_are_folded_and_counted():
    types = TypeCodes(("a", "b", "other"), folds_rare=True)
    parsed = _parse("t.csv", b"t,k\n0,a\n1,z\n2,b\n3,y\n4,\n", types)
    assert parsed.sequences[0].types.tolist() == [0, 2, 1, 2]
    assert (
        parsed.counts.num_folded,
        [record.cause for record in parsed.rejected],
    ) == (2, ["missing_type"])


def test_names_by_frequency_keep_known_codes_and_fold_the_rest():
    counts = {f"k{number:03d}": number + 1 for number in range(300)}
    assert order_names(counts)[:2] == ("k299", "k298")
    assert order_names(counts, known=("k005", "k007"))[:3] == ("k005", "k007", "k299")
    folded = order_names(counts, folds_rare=True)
    assert (len(folded), folded[-1], folded[0]) == (256, "other", "k299")
    assert order_names({"a": 1, "b": 1}, folds_rare=True) == ("a", "b")
    full = order_names(counts, known=folded, folds_rare=True)
    assert full == folded


def test_too_many_types_say_what_folding_would_cost():
    counts = {f"k{number:03d}": 1 for number in range(300)}
    with pytest.raises(DataError, match=r"(?s)300 event types.*15\.0%.*source\.rare_types"):
        choose_type_names(counts, known=(), folds_rare=False, where="x")
    error = unnamed_types_error({"b": 1, "a": 2}, where="x")
    assert 'source.types = ["a", "b"]' in str(error)
    assert 'source.types = "auto"' in str(error)
