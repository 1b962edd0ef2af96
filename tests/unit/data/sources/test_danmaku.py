"""Bullet comments are read as players read them. Files are written by hand or by ElementTree."""

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.data.sources import READERS
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.type_codes import TypeCodes

READER = READERS["danmaku"]


def _read(data: bytes | str) -> ParsedFile:
    content = data.encode() if isinstance(data, str) else data
    return read_file(READER, "v.xml", content, types=TypeCodes(READER.type_names))


def _texts(parsed: ParsedFile) -> tuple[str, ...]:
    return parsed.sequences[0].texts


def _file(*texts: str) -> str:
    comments = "".join(f'<d p="{place},1,25,0">{text}</d>' for place, text in enumerate(texts))
    return f"<i><chatid>1</chatid>{comments}</i>"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_second_form_has_milliseconds_and_its_mode_in_other_places(version: str):
    comments = "".join(
        f'<d p="34656419668557{place:03d},0,{500 + 1000 * place},{mode},25,16777215,1593,0,a">'
        f"text {place}</d>"
        for place, mode in enumerate((1, 5, 4))
    )
    parsed = _read(f'<?xml version="{version}" encoding="UTF-8"?><i>{comments}</i>')
    assert parsed.sequences[0].times.tolist() == [0.5, 1.5, 2.5]
    assert parsed.sequences[0].types.tolist() == [1, 5, 4]
    assert not parsed.rejected


def test_an_id_is_never_a_time():
    parsed = _read('<i><d p="34656419668557827,1,25">a</d><d p="3.5,1,25">b</d></i>')
    assert parsed.sequences[0].times.tolist() == [3.5]
    assert "is an id" in parsed.rejected[0].detail


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\x08b", "ab"),
        ("a&#x0;b&#8;c", "abc"),
        ("&#x4f60;&amp;&lt;", "你&<"),
        ("you & me", "you & me"),
        ("I <3 you", "I <3 you"),
        ("a < b && c", "a < b && c"),
        ("&nbsp;", "&nbsp;"),
        ("\ufffe\uffff", ""),
    ],
)
def test_forbidden_characters_lose_no_comment(written: str, read: str):
    parsed = _read(_file("first", written, "last"))
    assert _texts(parsed) == ("first", read, "last")
    assert not parsed.rejected


def test_a_damaged_comment_is_lost_alone():
    text = '<i><d p="1,1">a</d><d p="2,1">cut<d p="3,1">c</d><d p="x,1">&</d><d p="4,1">d'
    parsed = _read(text)
    assert _texts(parsed) == ("a", "c")
    assert parsed.counts.num_read == 5
    assert len(parsed.rejected) == 3


@pytest.mark.parametrize("encoding", ["gbk", "gb2312", "gb18030", "utf-16", "utf-8", "big5"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_encodings(encoding: str, is_declared: bool):
    if encoding == "big5" and not is_declared:
        pytest.skip("an undeclared Big5 file cannot be distinguished from GB 18030")
    texts = [f"彈幕{place}" if encoding == "big5" else f"弹幕{place}!你好" for place in range(10)]
    head = f'<?xml version="1.0" encoding="{encoding}"?>' if is_declared else ""
    parsed = _read((head + _file(*texts)).encode(encoding))
    assert _texts(parsed) == tuple(texts)
    assert not parsed.rejected


def test_one_bad_byte_rejects_one_comment():
    data = _file("你好", "再见", "弹幕").encode()
    place = data.index("再".encode())
    parsed = _read(data[:place] + b"\xff" + data[place + 1 :])
    assert _texts(parsed) == ("你好", "弹幕")
    assert "invalid in the file's encoding" in parsed.rejected[0].detail


def test_other_elements_of_a_recording_are_counted_by_kind():
    text = (
        '<i><BililiveRecorder version="2"/><d p="0,1,25">a</d><gift ts="1" user="u"/>'
        '<sc ts="2" price="30">paid</sc><gift ts="3"/><guard ts="4"/></i>'
    )
    parsed = _read(text)
    assert parsed.counts.left_out == {"gift": 2, "sc": 1, "guard": 1}
    assert parsed.counts.num_read == 1
    broken = _read(text.replace("paid", "paid & loved"))
    assert broken.counts == parsed.counts


def test_a_file_that_is_lost_is_counted_by_its_comments():
    hostile = '<!DOCTYPE i [<!ENTITY a "x">]>' + _file(*"abcde").replace(">b<", ">&a;<")
    with pytest.raises(MalformedFileError, match=r"v\.xml") as caught:
        _read(hostile)
    assert caught.value.num_events == 5


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_output_of_elementtree_is_read_completely(texts: list[str]):
    legal = [
        "".join(c for c in text if c >= " " and not "\ud800" <= c <= "\udfff" and c < "\ufffe")
        for text in texts
    ]
    root = ElementTree.Element("i")
    for place, text in enumerate(legal):
        ElementTree.SubElement(root, "d", p=f"{place},1,25").text = text
    data = io.BytesIO()
    ElementTree.ElementTree(root).write(data, encoding="utf-8", xml_declaration=True)
    parsed = _read(data.getvalue())
    assert _texts(parsed) == tuple(legal)


def test_a_real_recording_is_read_completely(real_data: Path):
    data = (real_data / "danmaku_dfm_apache" / "comments.xml").read_bytes()
    parsed = _read(data)
    assert parsed.counts.num_read == data.count(b"<d p=")
    assert not parsed.rejected
