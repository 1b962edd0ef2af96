"""Patches of small images: where their values come from, and how they are whitened."""

import numpy as np
import torch

from mmtpp.core.past.event_images import IMAGE_SIDE, IMAGE_VALUES
from mmtpp.expert.image_features import ImageFeatures
from mmtpp.expert.image_patches import (
    PATCH_PX,
    PATCH_VALUES,
    PATCHES_A_SIDE,
    PatchSums,
    split_patches,
)


def _random_images(number: int) -> np.ndarray:
    """Images whose values vary little around a common level, with neighbours alike."""
    rng = np.random.default_rng(0)
    level = rng.normal(100, 30, (number, 1))
    return (level + rng.normal(0, 4, (number, IMAGE_VALUES))).clip(0, 255).astype(np.uint8)


def test_a_patch_has_the_values_of_its_pixels():
    image = torch.arange(IMAGE_VALUES)
    patches = split_patches(image[None])
    assert patches.shape == (1, PATCHES_A_SIDE**2, PATCH_VALUES)
    pixels = image.view(IMAGE_SIDE, IMAGE_SIDE, 3)
    row, column = 5, 2
    top, left = row * PATCH_PX, column * PATCH_PX
    expected = pixels[top : top + PATCH_PX, left : left + PATCH_PX].flatten()
    assert torch.equal(patches[0, row * PATCHES_A_SIDE + column], expected)


def test_whitened_patches_vary_equally_in_all_directions():
    images = _random_images(300)
    sums = PatchSums()
    sums.add(images[:100])
    sums.add(images[100:])
    statistics = sums.statistics()
    assert statistics is not None
    patches = split_patches(torch.from_numpy(images)).reshape(-1, PATCH_VALUES).double().numpy()
    np.testing.assert_allclose(statistics.mean, patches.mean(0), rtol=1e-5)
    whitened = (patches - statistics.mean) @ statistics.whitening
    before = np.linalg.eigvalsh(np.cov(patches.T))
    after = np.linalg.eigvalsh(np.cov(whitened.T))
    assert before[-1] > 500 * before[0]
    assert 0.9 < after[0] < after[-1] < 1.001
    np.testing.assert_allclose(statistics.whitening, statistics.whitening.T, atol=1e-6)


def test_directions_without_differences_are_not_enlarged():
    sums = PatchSums()
    sums.add(np.full((5, IMAGE_VALUES), 90, dtype=np.uint8))
    statistics = sums.statistics()
    assert statistics is not None
    np.testing.assert_allclose(statistics.whitening, 12**0.5 * np.eye(PATCH_VALUES), atol=1e-6)


def test_no_images_have_no_statistics():
    assert PatchSums().statistics() is None


def test_only_what_changed_is_a_change():
    torch.manual_seed(0)
    features = ImageFeatures()
    images = torch.from_numpy(_random_images(2).astype(np.int16))
    same = torch.stack([images[0], images[0]])[None]
    other = torch.stack([images[0], images[1]])[None]
    change = slice(2 * features.places.shape[1], None)
    with torch.inference_mode():
        assert not features(same)[:, change].any()
        assert features(other)[:, change].any()
        # without the image before, nothing is known to have changed
        other[:, 1] = -1
        assert not features(other)[:, change].any()
        assert features(other).any()


def test_many_images_are_read_in_parts():
    torch.manual_seed(0)
    features = ImageFeatures()
    images = torch.from_numpy(_random_images(1201).astype(np.int16))
    pairs = torch.stack([images, images.roll(1, 0)], 1)
    with torch.inference_mode():
        actual = features(pairs)
    torch.testing.assert_close(actual, features(pairs).detach())
