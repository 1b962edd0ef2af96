"""Compare attention within segments with one masked attention over the whole row."""

import pytest
import torch
from torch.nn import functional

from mmtpp.model.attention import Segments, packed_attention
from mmtpp.model.event_model import EventModel
from tests.helpers.tiny_models import batcher, random_row, tiny_backbone, tiny_vocabulary

LENGTHS = (5, 1, 17, 40)
TOKENS, HEADS, KEYS, WIDTH = sum(LENGTHS), 8, 2, 16


def _inputs(device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, TOKENS, WIDTH) for heads in (HEADS, KEYS, KEYS)]
    return [
        torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
        for shape in shapes
    ]


def _segments(device: str = "cpu") -> Segments:
    starts = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    return Segments(LENGTHS, starts.to(device))


def _masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    segment = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    mask = (segment[:, None] == segment) & torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    key, value = (tensor.repeat_interleave(HEADS // KEYS, dim=1) for tensor in (key, value))
    scores = (query @ key.transpose(-1, -2)) * WIDTH**-0.5
    weights = functional.softmax(scores.masked_fill(~mask.to(query.device), -torch.inf), dim=-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [
        ("cpu", torch.float32, 1e-5),
        ("cpu", torch.bfloat16, 4e-3),  # computed in float32 and rounded once
        pytest.param(
            "cuda",
            torch.bfloat16,
            3e-2,
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ),
    ],
)
def test_segments_attend_to_themselves_only(device: str, dtype: torch.dtype, tolerance: float):
    results = []
    for attend in (
        lambda *inputs: packed_attention(
            torch.nn.Module(),
            *inputs,
            None,  # pyright: ignore[reportCallIssue]
            segments=_segments(device),
            scaling=WIDTH**-0.5,
        )[0],
        lambda *inputs: _masked(*(tensor.float() for tensor in inputs)).to(dtype),
    ):
        inputs = _inputs(device, dtype)
        out = attend(*inputs)
        assert out.shape == (1, TOKENS, HEADS, WIDTH)
        (out.float() * torch.arange(WIDTH, device=device)).sum().backward()
        results.append([out, *(tensor.grad for tensor in inputs)])
    for ours, masked in zip(*results, strict=True):
        scale = masked.float().abs().max()
        assert (ours - masked).float().abs().max() < tolerance * scale


def test_a_mask_with_segments_is_refused():
    with pytest.raises(ValueError, match="neither a mask"):
        packed_attention(
            torch.nn.Module(),
            *_inputs(),
            torch.ones(1, 1, 1, 1),  # pyright: ignore[reportCallIssue]
            segments=_segments(),
        )


def test_the_attention_of_the_last_token_is_that_of_transformers():
    vocabulary = tiny_vocabulary()
    backbone = tiny_backbone(vocabulary)
    row = random_row(vocabulary, [37], seed=3)
    batch = batcher(vocabulary)(row)
    model = EventModel(backbone).eval()
    actual = model.last_token_attention(batch)
    layers = backbone.config.text_config.num_hidden_layers  # pyright: ignore[reportAttributeAccessIssue]
    assert (layers, 37) == tuple(actual.shape)
    assert torch.ones(layers) == pytest.approx(actual.sum(dim=1))
    with torch.inference_mode():
        embeds = model.embed(batch)
        language_model = backbone.model.language_model
        language_model.set_attn_implementation("eager")
        expected = language_model(
            inputs_embeds=embeds, position_ids=batch.position_ids, output_attentions=True
        ).attentions
    for layer, weights in enumerate(expected):
        assert weights[0, :, -1].mean(dim=0).numpy() == pytest.approx(
            actual[layer].numpy(), abs=1e-5
        )
    with pytest.raises(ValueError, match="single segment"):
        model.last_token_attention(batcher(vocabulary)(random_row(vocabulary, [9, 9], seed=0)))
