"""Compare the forward pass with transformers', and packed rows with separate rows."""

import numpy as np
import pytest
import torch
from transformers import Qwen2VLImageProcessorPil

from mmtpp.core.representation.positions import mrope_positions
from mmtpp.model.event_model import EventModel
from mmtpp.model.processor import pixel_values
from tests.helpers.tiny_models import (
    CELLS,
    batcher,
    nll,
    random_row,
    split_row,
    tiny_backbone,
    tiny_vocabulary,
)

VOCABULARY = tiny_vocabulary()


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone(VOCABULARY)


@pytest.mark.parametrize("side", [2, 3, 5])
def test_positions_are_those_of_transformers(backbone, side: int):
    pad = VOCABULARY.special("<|image_pad|>")
    image = [VOCABULARY.special("<|vision_start|>"), *[pad] * side**2]
    end = VOCABULARY.special("<|vision_end|>")
    # text, two adjacent images, text
    ids = np.array([5, 6, 7, *image, end, *image, end, 8, 9, *image, end, 4])
    expected, _ = backbone.model.get_rope_index(
        torch.tensor(ids)[None],
        (torch.tensor(ids)[None] == pad).int(),
        image_grid_thw=torch.tensor([[1, 2 * side, 2 * side]] * 3),
    )
    actual = mrope_positions(ids == pad, np.zeros(len(ids), np.int32), image_side=side)
    assert expected[:, 0].tolist() == actual.tolist()


def test_positions_restart_in_every_segment():
    pads = np.zeros(7, dtype=np.bool_)
    actual = mrope_positions(pads, np.array([0, 0, 0, 1, 1, 2, 2]), image_side=2)
    assert actual.tolist() == [[0, 1, 2, 0, 1, 0, 1]] * 3


@pytest.mark.parametrize("side_px", [56, 84, 168])
def test_patches_are_those_of_the_published_processor(side_px: int):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, side_px, side_px, 3), dtype=np.uint8)
    reference = Qwen2VLImageProcessorPil(min_pixels=side_px**2, max_pixels=side_px**2)(
        images=list(frames), return_tensors="np"
    )
    assert reference["image_grid_thw"].tolist() == [[1, side_px // 14, side_px // 14]] * 2
    # measured 2026-11-22: at most 2.4e-7, rounding of the normalisation
    np.testing.assert_allclose(pixel_values(frames), reference["pixel_values"], rtol=0, atol=1e-6)


def test_likelihoods_are_those_of_transformers(backbone):
    """A segment with images has the likelihoods of the unmodified model with its own positions."""
    row = random_row(VOCABULARY, [60], seed=3)
    batch = batcher(VOCABULARY)(row)
    ids = torch.tensor(row.input_ids.astype(np.int64))[None]
    with torch.no_grad():
        logits = backbone(
            input_ids=ids,
            pixel_values=torch.tensor(pixel_values(row.frames[row.image_frame])),
            image_grid_thw=torch.tensor([[1, 4, 4]] * len(row.image_frame)),
            mm_token_type_ids=(ids == VOCABULARY.special("<|image_pad|>")).int(),
            use_cache=False,
        ).logits[0]
    expected = -logits.log_softmax(-1)[batch.labels - 1, ids[0, batch.labels]]
    actual = nll(EventModel(backbone), VOCABULARY, row)
    # float32 with losses up to 30; attention sums in another order
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)


def test_packed_rows_equal_separate_forwards(backbone):
    row = random_row(VOCABULARY, [40, 25, 17, 60], seed=4)
    model = EventModel(backbone)
    packed = nll(model, VOCABULARY, row)
    separate = torch.cat([nll(model, VOCABULARY, part) for part in split_row(row)])
    torch.testing.assert_close(packed, separate, rtol=0, atol=2e-4)
    # attention across segments would change the result far beyond the tolerance
    merged = random_row(VOCABULARY, [142], seed=4, images=False)
    merged = type(merged)(
        **{
            **{name: getattr(row, name) for name in row.__slots__},
            "segment": np.zeros(142, dtype=np.int32),
        }
    )
    contaminated = nll(model, VOCABULARY, merged)
    assert len(contaminated) == len(packed) + 3
    assert (contaminated[40 - 2 * CELLS :][:10] - packed[39 - 2 * CELLS :][:10]).abs().max() > 0.1


def test_a_row_without_images_runs_the_tower_without_effect(backbone):
    row = random_row(VOCABULARY, [30], seed=5, images=False)
    ids = torch.tensor(row.input_ids.astype(np.int64))[None]
    with torch.no_grad():
        logits = backbone(input_ids=ids, use_cache=False).logits[0]
    expected = -logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(
        nll(EventModel(backbone), VOCABULARY, row), expected, rtol=0, atol=2e-4
    )
