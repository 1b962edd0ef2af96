"""Tar shards: written by Python's tarfile, read as tables; damaged, odd and hostile archives."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable

import pytest

from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.tar_records import read_tar
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.storage.image_files import name_of_bytes

COLUMNS = Columns(time="json.at", sequence="json.who", type="json.what", text="txt", image="jpg")


def _tar(*files: tuple[str, bytes], change: Callable[[tarfile.TarFile], None] | None = None):
    """An archive of files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if change is not None:
            change(archive)
    return sink.getvalue()


def _event(name: str, at: float, image: bytes = b"image") -> list[tuple[str, bytes]]:
    record = {"at": at, "who": "a", "what": "on"}
    return [
        (f"{name}.json", json.dumps(record).encode()),
        (f"{name}.txt", f"text of {at}".encode()),
        (f"{name}.jpg", image),
    ]


def _read(data: bytes, path: str = "x/000.tar"):
    reader = build_reader("columns", columns=COLUMNS)
    return read_file(reader, path, data, types=TypeCodes(("on",)))


def test_records_are_events_with_the_bytes_of_their_images():
    data = _tar(*_event("part/07", 1.5), *_event("part/1", 0.5, b"other"))
    for path, content in (("0.tar", data), ("0.tar.gz", gzip.compress(data))):
        parsed = _read(content, path)
        [sequence] = parsed.sequences
        assert (sequence.sequence_id, sequence.times.tolist()) == ("a", [0.5, 1.5])
        assert sequence.texts == ("text of 0.5", "text of 1.5")
        assert sequence.images == (name_of_bytes(b"other"), name_of_bytes(b"image"))
        assert not parsed.rejected


def test_a_field_has_the_name_after_the_first_dot():
    data = _tar(("./a/7.seg.PNG", b"\x89"), ("./a/7.meta.json", b'{"x": [1]}'), ("./a/7.cls", b"3"))
    assert list(read_tar("0.tar", data)) == [
        ({"__key__": "a/7", "seg.png": b"\x89", "meta.json": {"x": [1]}, "cls": "3"}, None)
    ]


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        ([("1.json", b"{"), ("1.jpg", b"")], "'1.json': not JSON"),
        ([("1.json", b"\xff")], "'1.json': not UTF-8"),
        ([*_event("1", 1.0), ("1.jpg", b"again")], "'1.jpg' occurs twice"),
        ([("1", b"")], "'1' has no suffix"),
        ([*_event("0", 1.0)[:1]], "do not follow each other"),
    ],
)
def test_a_faulty_record_is_rejected_alone(files: list[tuple[str, bytes]], detail: str):
    parsed = _read(_tar(*_event("0", 0.0), *_event("9", 9.0), *files))
    [sequence] = parsed.sequences
    assert sequence.times.tolist() == [0.0, 9.0]
    [rejected] = parsed.rejected
    assert detail in rejected.detail
    assert rejected.row == 2


def test_a_link_is_no_image_and_is_not_followed():
    """GNU tar writes a file that occurs twice as a hard link."""

    def add_others(archive: tarfile.TarFile) -> None:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("1.jpg", tarfile.SYMTYPE),
            ("2.jpg", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0.jpg"
            archive.addfile(member)

    files = [("._0.json", b"made by an archiver"), *_event("0", 1.0)]
    parsed = _read(_tar(*files, change=add_others))
    assert [len(sequence) for sequence in parsed.sequences] == [1]
    assert ["is a link" in rejected.detail for rejected in parsed.rejected] == [True, True]


@pytest.mark.parametrize("size", [100, 700, 1536, 5 * 512])
def test_a_truncated_archive_loses_no_event_silently(size: int):
    with pytest.raises(MalformedFileError, match=r"truncated|damaged"):
        list(read_tar("0.tar", _tar(*_event("0", 1.0), *_event("1", 2.0))[:size]))


def test_an_archive_without_its_end_is_truncated():
    data = _tar(*_event("0", 1.0))
    whole = len(_event("0", 1.0)) * 2 * tarfile.BLOCKSIZE
    assert data[whole:].strip(b"\0") == b""
    with pytest.raises(MalformedFileError, match="mark of the archive's end"):
        list(read_tar("0.tar", data[:whole]))
    assert len(list(read_tar("0.tar", data[: whole + 512]))) == 1


def test_a_sparse_file_cannot_unpack_to_gigabytes():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("0.jpg")
        content = b"1\n1000000000\n0\n"
        member.size = len(content)
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "0.jpg",
            "GNU.sparse.realsize": "1000000000",
        }
        archive.addfile(member, io.BytesIO(content.ljust(512, b"\0")))
    with pytest.raises(MalformedFileError, match="sparse"):
        list(read_tar("0.tar", sink.getvalue()))
