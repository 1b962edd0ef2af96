"""The size of a chunk of samples bounds the memory that the feed takes."""

import pytest

from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.data.samples.feed import CHUNK, CHUNK_BYTES, chunk_size
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_settings import StoreSettings


def _settings(style: str, *, image_px: int, older_tokens: int = 0) -> SampleSettings:
    images = "per_event" if image_px else "none"
    return SampleSettings(
        store=StoreSettings("s3://b/data", "f", image_px or 56),
        compression=Compression("none"),
        template=TemplateSettings(style, images, (image_px // 28) ** 2 or 4),
        max_tokens=4096,
        overlap_fraction=0.0,
        time_from=None,
        time_to=None,
        split="train",
        max_sequences=0,
        targets_delta=0.0,
        packed=True,
        seed=0,
        older_tokens=older_tokens,
    )


@pytest.mark.parametrize(
    ("settings", "most_images"),
    [
        (_settings("dense", image_px=56), 4096 / 4),
        (_settings("dense", image_px=224), 4096 / 64),
        (_settings("dense", image_px=224, older_tokens=2048), 2048 / 64 + 2048),
        (_settings("soft", image_px=224), 4096),
    ],
    ids=["small images", "large images", "older events", "soft tokens"],
)
def test_a_chunk_of_different_images_fits(settings: SampleSettings, most_images: float):
    size = chunk_size(settings)
    image_bytes = 3 * settings.image_px**2
    assert size == 1 or size * most_images * image_bytes <= CHUNK_BYTES
    # and no smaller than needed: a third more would not fit
    sample_bytes = most_images * image_bytes + 4096 * 600
    assert size == 1 or (size + 1) * 1.4 * sample_bytes > CHUNK_BYTES


def test_text_has_chunks_of_the_largest_size():
    assert chunk_size(_settings("dense", image_px=0)) == CHUNK
