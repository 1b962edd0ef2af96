"""Event files that are packed: every format, several streams, truncated and damaged content."""

import bz2
import json
import lzma
from pathlib import Path

import pytest

from mmtpp.cli.main import main
from mmtpp.data.sources import event_files
from mmtpp.data.sources.event_files import (
    MalformedFileError,
    stem,
    suffix_of,
    unpack,
    whole_suffix,
)
from tests.helpers.event_files import PACKERS, pack_zstd

TEXT = b"".join(b"pump-%d,%d\n" % (place % 7, place * place) for place in range(3000))


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_of_several_streams_has_the_content_of_all(
    suffix: str, monkeypatch: pytest.MonkeyPatch
):
    pack = PACKERS[suffix]
    packed = pack(TEXT[:20_000]) + pack(b"") + pack(TEXT[20_000:])
    assert unpack(f"a/t.csv{suffix}", packed) == TEXT
    assert unpack(f"a/t.csv{suffix.upper()}", packed) == TEXT
    for size in (7, len(pack(TEXT[:20_000]))):  # a stream may end inside a chunk or with it
        monkeypatch.setattr(event_files, "_CHUNK_BYTES", size)
        assert unpack(f"t.csv{suffix}", packed) == TEXT


@pytest.mark.parametrize("suffix", PACKERS)
def test_truncated_and_foreign_content_is_an_error(suffix: str):
    path, packed = f"t.csv{suffix}", PACKERS[suffix](TEXT)
    bad = [TEXT, packed + b"junk" * 10, packed + packed[: len(packed) // 2]]
    bad += [packed[:end] for end in (1, 5, len(packed) // 2, len(packed) - 1)]
    for content in bad:
        with pytest.raises(MalformedFileError, match=rf"^{path}: not "):
            unpack(path, content)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])  # the .zst of these tests has no sum
def test_a_changed_byte_is_an_error(suffix: str):
    packed = bytearray(PACKERS[suffix](TEXT))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(MalformedFileError, match="or damaged"):
        unpack(f"t.csv{suffix}", bytes(packed))


def test_zero_bytes_after_the_last_stream_are_padding():
    assert unpack("t.xz", lzma.compress(TEXT) + b"\0" * 8) == TEXT
    assert unpack("t.bz2", bz2.compress(TEXT) + b"\0" * 512) == TEXT


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_bomb_is_refused_before_it_fills_the_memory(suffix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_files, "MAX_UNPACKED_BYTES", 2**16)
    packed = PACKERS[suffix](b"0" * 2**22)
    assert len(packed) < 2**16
    with pytest.raises(MalformedFileError, match="more than 65536 bytes unpacked"):
        unpack(f"t.csv{suffix}", packed)


def test_an_xz_file_that_needs_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_files, "MAX_UNPACKER_BYTES", 2**20)
    with pytest.raises(MalformedFileError, match="Memory usage limit exceeded"):
        unpack("t.xz", lzma.compress(TEXT, preset=9))


def test_names():
    assert [suffix_of(path) for path in ("a/T.CSV.ZST", "t.csv", "t.xz", "README")] == [
        ".csv",
        ".csv",
        "",
        "",
    ]
    assert [stem(path) for path in ("x/a.b.jsonl.xz", "x.y/t.bz2", "t.csv")] == [
        "x/a.b",
        "x.y/t",
        "t",
    ]
    assert whole_suffix("a/T.CSV.ZST") == ".csv.zst"


def test_inspect_shows_the_formats_and_counts_a_damaged_file(tmp_path: Path, capsys):
    rows = b"machine,time\npump,0\npump,2\n"
    (tmp_path / "raw").mkdir()
    for suffix, pack in PACKERS.items():
        content = pack(rows.replace(b"pump", suffix.encode()))
        (tmp_path / "raw" / f"a.csv{suffix}").write_bytes(content)
    (tmp_path / "raw" / "cut.csv.zst").write_bytes(pack_zstd(rows)[:-3])
    report = tmp_path / "report.json"
    arguments = ["inspect", str(tmp_path / "raw"), "--kind", "columns", "--json", str(report)]
    settings = ["--set=source.columns.time=time", "--set=source.columns.sequence=machine"]
    assert main([*arguments, *settings]) == 0
    tree = json.loads(report.read_text())
    assert tree["files_read"] == {".csv.bz2": 1, ".csv.gz": 1, ".csv.xz": 1, ".csv.zst": 2}
    assert (tree["num_events"], tree["rejected_by_cause"]) == (8, {"malformed_file": 1})
    printed = capsys.readouterr().out
    assert "files read, by suffix: 1 .csv.bz2, 1 .csv.gz, 1 .csv.xz, 2 .csv.zst" in printed
    assert "cut.csv.zst: not zstd, or damaged: Truncated compressed stream" in printed
