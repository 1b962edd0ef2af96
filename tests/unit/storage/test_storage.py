"""Paths, manifests and images from untrusted sources."""

import io

import numpy as np
import pytest
from PIL import Image

from mmtpp.core.errors import DataError, StorageError
from mmtpp.model.processor import decode_image
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import find_manifest, load_manifest
from mmtpp.storage.paths import (
    copy_folder,
    create_bytes,
    exists,
    join,
    join_inside,
    list_files,
    read_bytes,
    remove_file,
    write_bytes,
)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "c:/x", "s3://b/x", "a\0b"])
def test_a_path_that_leaves_the_source_is_refused(path: str):
    with pytest.raises(DataError, match="leaves the source folder"):
        join_inside("s3://bucket/source", path)


def test_a_path_inside_the_source_is_joined():
    assert join_inside("s3://b/s/", "images/./a.png") == "s3://b/s/images/a.png"


def test_local_files_round_trip(tmp_path):
    uri = join(str(tmp_path), "deep", "file.bin")
    assert not exists(uri)
    write_bytes(uri, b"one")
    write_bytes(uri, b"two")
    assert read_bytes(uri) == b"two"
    copy_folder(str(tmp_path / "deep"), str(tmp_path / "copy"))
    assert [info.base_name for info in list_files(str(tmp_path / "copy"), ".bin")] == ["file.bin"]


@pytest.mark.parametrize("place", ["memory://created", "local"])
def test_a_file_is_created_once(tmp_path, place: str):
    uri = join(place if "://" in place else str(tmp_path), "new folder", "file")
    assert create_bytes(uri, b"first")
    assert not create_bytes(uri, b"second")
    assert read_bytes(uri) == b"first"
    assert [info.path.rpartition("/")[2] for info in list_files(uri.rpartition("/")[0], "")] == [
        "file"
    ]
    remove_file(uri)
    assert not exists(uri)
    remove_file(uri)  # it is gone
    assert create_bytes(uri, b"third")


def test_missing_files_and_unknown_schemes_are_errors(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        read_bytes(str(tmp_path / "none"))
    with pytest.raises(StorageError, match="does not exist"):
        list_files(str(tmp_path / "none"), "")
    with pytest.raises(StorageError, match="not supported"):
        filesystem_of("gopher://host/x")


def test_a_store_without_manifest_does_not_exist(tmp_path):
    (tmp_path / "data-123").mkdir()
    assert find_manifest(str(tmp_path)) is None
    with pytest.raises(DataError, match=r"(?s)manifest\.json is missing.*prepare\.py has not run"):
        load_manifest(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 9}']
)
def test_a_damaged_manifest_is_an_error(tmp_path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest is damaged|schema version"):
        load_manifest(str(tmp_path))


def _png(width: int, height: int, mode: str = "RGB") -> bytes:
    target = io.BytesIO()
    Image.new(mode, (width, height), 1).save(target, format="PNG")
    return target.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_images_of_any_mode_become_squares_of_rgb(mode: str):
    assert len(decode_image(_png(30, 90, mode), image_px=56, max_pixels=10_000)) == 56 * 56 * 3


def test_a_plain_image_keeps_its_color():
    target = io.BytesIO()
    Image.new("RGB", (10, 10), (10, 200, 30)).save(target, format="PNG")
    pixels = np.frombuffer(decode_image(target.getvalue(), image_px=28, max_pixels=100), np.uint8)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[10, 200, 30]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "unreadable"),
        (b"GIF89a", "unreadable"),
        (_png(56, 56)[:40], "unreadable"),
        (_png(200, 200), "too large"),
    ],
)
def test_bad_images_are_refused(data: bytes, message: str):
    with pytest.raises(DataError, match=message):
        decode_image(data, image_px=56, max_pixels=10_000)
