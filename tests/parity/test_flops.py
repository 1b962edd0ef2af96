"""Compare counted operations with the operations that torch counts in a pass of the model."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter, peak_flops, published_peak
from mmtpp.model.parameters.lora import attach_lora
from tests.helpers.tiny_models import IMAGE_PX, batcher, random_row, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("images", "blank_frame"), [(False, True), (True, True), (True, False), (False, False)]
)
def test_operations_are_those_that_are_computed(lora: bool, images: bool, blank_frame: bool):
    backbone = tiny_backbone(VOCABULARY)
    backbone.model.visual.requires_grad_(images or blank_frame)
    if lora:
        backbone = attach_lora(backbone, VOCABULARY.added_ids, rank=4, alpha=8, dropout=0.0)
    model = EventModel(backbone).train()
    row = random_row(VOCABULARY, [200, 300], seed=1, images=images)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(batcher(VOCABULARY, blank_frame=blank_frame)(row))[0].sum().backward()
    counted = FlopCounter(model, image_px=IMAGE_PX, blank_frame=blank_frame)(row)
    assert (counted.tower > 0) == (images or blank_frame)
    # this attention also computes the products that the causal mask removes
    expected = counter.get_total_flops() - counted.attention
    # not counted, and small: the tower's input needs no gradient, an image's row has no label
    assert counted.total == pytest.approx(expected, rel=0.03)
    assert counted.attention > 0.1 * counted.total


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_published_peaks_are_matched_by_whole_names(name: str, expected: float | None):
    assert published_peak(name) == expected


def test_a_peak_is_measured_with_products():
    peak, source = peak_flops(torch.device("cpu"), torch.float32)
    assert "measured" in source
    assert 1e9 < peak < 1e14


def test_the_peak_of_a_cpu_is_not_that_of_its_slowest_products():
    device = torch.device("cpu")
    wide, _ = peak_flops(device, torch.float32)
    narrow, _ = peak_flops(device, torch.bfloat16)
    assert narrow > wide / 10  # without its instructions it is a hundredth
