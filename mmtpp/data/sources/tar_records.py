"""Records of tar shards in WebDataset's layout: the files of one record have one name.

    0001.json  0001.jpg  0001.txt    the fields ``json``, ``jpg``, ``txt`` and ``__key__`` = "0001"

The name ends at the first dot of the last part of the path; the field is what follows this dot. The
files of a record follow each other. Nothing is extracted, so paths inside the archive are only
names.

Source: https://github.com/webdataset/webdataset, "The WebDataset Format"; field names as in Hugging
Face's ``datasets``.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from mmtpp.data.sources.event_files import MalformedFileError

KEY = "__key__"
JSON_FIELDS = ("json", "jsn")
TEXT_FIELDS = ("txt", "text", "transcript", "cls", "cls2", "class", "count", "index", "inx", "id")
_END = bytes(tarfile.BLOCKSIZE)


def read_tar(path: str, data: bytes) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The fields of each record, and its problem; None for a well-formed record.

    A field ``json``, also of longer names such as ``meta.json``, has the parsed value, a field in
    ``TEXT_FIELDS`` a text (also where WebDataset reads a number), and every other field the bytes
    of the file. Folders and hidden files are left out.

    Args:
        path: Path of the archive, for messages.
        data: Unpacked content of the archive.

    Raises:
        MalformedFileError: The archive is damaged or truncated, or has a sparse file.
    """
    seen: set[str] = set()
    for key, members in groupby(_members(path, data), key=lambda member: _split(member[0])[0]):
        fields: dict[str, Any] = {KEY: key}
        problem = f"the files of {key!r} do not follow each other" if key in seen else None
        seen.add(key)
        for name, content in members:
            field = _split(name)[1]
            if not field:
                problem = problem or f"{name!r} has no suffix, which names its field"
            elif field in fields:
                problem = problem or f"{name!r} occurs twice"
            elif content is None:
                problem = problem or f"{name!r} is a link or a device, not a file"
            else:
                fields[field], fault = _value(field, content)
                problem = problem or (f"{name!r}: {fault}" if fault else None)
        yield fields, problem


def _members(path: str, data: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Name and content of each member but folders and hidden files; None for what is no file."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.issparse():
                    raise MalformedFileError(f"{path}: {member.name!r} is a sparse file")
                if member.isdir() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if not member.isfile():
                    yield member.name, None
                    continue
                file = archive.extractfile(member)
                assert file is not None
                content = file.read()
                if len(content) < member.size:
                    raise MalformedFileError(f"{path}: truncated in {member.name!r}")
                yield member.name, content
            end = archive.offset
    except tarfile.TarError as error:
        raise MalformedFileError(f"{path}: not a tar archive, or damaged: {error}") from error
    if data[end - len(_END) : end] != _END and data[end : end + len(_END)] != _END:
        raise MalformedFileError(f"{path}: truncated: the mark of the archive's end is missing")


def _split(name: str) -> tuple[str, str]:
    """Key and field of a file."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, field = last.partition(".")
    return f"{folder}{slash}{stem}", field.lower()


def _value(field: str, content: bytes) -> tuple[Any, str | None]:
    """The value of a field, and why it cannot be read."""
    last = field.rpartition(".")[2]
    if last not in JSON_FIELDS + TEXT_FIELDS:
        return content, None
    try:
        text = content.decode()
        return (json.loads(text) if last in JSON_FIELDS else text), None
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
