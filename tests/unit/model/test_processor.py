"""Unreadable images have a reason that is the same in every run."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtpp.core.errors import DataError
from mmtpp.model.processor import decode_image


def _encode(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format=kind)
    return file.getvalue()


UNKNOWN = "unreadable image: not a PNG, JPEG or WebP image, or its header is damaged"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is no image", UNKNOWN),
        (_encode("GIF"), UNKNOWN),
        (_encode("PNG")[:10], UNKNOWN),
        (_encode("PNG")[:6000], "unreadable image: image file is truncated"),
        (_encode("JPEG")[:2000], "unreadable image: image file is truncated"),
        (_encode("WEBP")[:2000], "unreadable image: could not create decoder object"),
    ],
)
def test_the_reason_contains_no_address_of_an_object(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode_image(path.read_bytes(), image_px=28, max_pixels=10**7)
    assert str(caught.value).startswith(reason)
    assert "0x" not in str(caught.value)
