"""Compare the attention of short segments in groups with one masked attention of the whole row."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.attention import packed_attention
from mmtpp.model.event_model import EventModel
from mmtpp.model.grouped_attention import MIN_FILL, SHORT_TOKENS, group_segments
from tests.helpers.tiny_models import CELLS, batcher, random_row, split_row, tiny_backbone
from tests.parity.branched_rows import VOCABULARY, events_of, row_of

WIDTH = 24
MANY = np.random.default_rng(0).integers(1, 41, 60).tolist()
TEMPLATE = Template(
    VOCABULARY.token_ids(),
    TemplateSettings("compact", "on_change", image_tokens=CELLS, run_encoding="run_length"),
)


def _row(lengths: list[int]) -> tuple[PackedRow, np.ndarray]:
    """A row, and (T, T) True where a token sees another."""
    segment = np.repeat(np.arange(len(lengths)), lengths)
    sees = (segment[:, None] == segment) & np.tri(len(segment), dtype=np.bool_)
    return random_row(VOCABULARY, lengths, seed=0, images=False), sees


def _attend(
    row: PackedRow, heads: tuple[int, int], dtype: torch.dtype, sees: np.ndarray | None = None
) -> list[torch.Tensor]:
    """The output and the gradients of the inputs: of the groups, or with a mask of the row."""
    generator = torch.Generator().manual_seed(0)
    num_tokens, (num_heads, num_keys) = len(row.input_ids), heads
    inputs = [
        # in memory as a layer has them: heads within tokens
        torch.randn(1, num_tokens, count, WIDTH, generator=generator)
        .to(dtype)
        .transpose(1, 2)
        .requires_grad_()
        for count in (num_heads, num_keys, num_keys)
    ]
    if sees is None:
        segments = batcher(VOCABULARY, dtype, blank_frame=False)(row).segments
        query, key, value = inputs
        out, _ = packed_attention(torch.nn.Module(), query, key, value, None, segments=segments)
    else:
        query, key, value = (tensor.float() for tensor in inputs)
        key, value = (x.repeat_interleave(num_heads // num_keys, dim=1) for x in (key, value))
        scores = (query @ key.transpose(-1, -2)) * WIDTH**-0.5
        weights = functional.softmax(scores.masked_fill(~torch.tensor(sees), -torch.inf), dim=-1)
        out = (weights @ value).transpose(1, 2).to(dtype)
    assert out.shape == (1, num_tokens, num_heads, WIDTH)
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    gradients = [tensor.grad for tensor in inputs if tensor.grad is not None]
    return [tensor.float() for tensor in (out.detach(), *gradients)]


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param(MANY, id="many short"),
        pytest.param([SHORT_TOKENS, 1, SHORT_TOKENS + 1, 7, 200, 30], id="short and long"),
        pytest.param([SHORT_TOKENS + 1, 200], id="long"),
    ],
)
@pytest.mark.parametrize("heads", [(4, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, 1e-5),  # measured 2026-11-30: at most 8.4e-7 of the largest value
        (torch.bfloat16, 4e-3),  # computed in float32 and rounded once; measured: at most 1.1e-3
    ],
)
def test_outputs_and_gradients_are_those_of_a_mask(
    lengths: list[int], heads: tuple[int, int], dtype: torch.dtype, tolerance: float
):
    row, sees = _row(lengths)
    grouped = _attend(row, heads, dtype)
    masked = _attend(row, heads, dtype, sees)
    for ours, expected in zip(grouped, masked, strict=True):
        assert (ours - expected).abs().max() < tolerance * expected.abs().max()


def test_groups_hold_every_segment_once_and_are_of_similar_length():
    lengths = [*[100] * 3, 200, *[60] * 2, *[10] * 5, SHORT_TOKENS + 1, 9, SHORT_TOKENS + 1, 76]
    groups = group_segments(lengths)
    assert groups is not None
    long = [(1, 200), (1, SHORT_TOKENS + 1), (1, SHORT_TOKENS + 1)]
    assert list(groups.shapes) == [*long, (4, 100), (2, 60), (6, 10)]
    ends = np.cumsum(lengths)
    held = []
    parts = groups.places.split([count * size for count, size in groups.shapes])
    for part, (_, size) in zip(parts, groups.shapes, strict=True):
        for places in part.view(-1, size).numpy():
            index = int(np.searchsorted(ends, places[0], side="right"))
            tokens = np.arange(ends[index] - lengths[index], ends[index])
            assert places[: len(tokens)].tolist() == tokens.tolist()
            assert (places[len(tokens) :] == tokens[-1]).all()
            assert len(tokens) >= MIN_FILL * size
            held.append(index)
    assert sorted(held) == list(range(len(lengths)))
    assert groups.places[groups.back].tolist() == list(range(sum(lengths)))


def test_rows_with_branches_and_segments_that_share_no_group_have_none():
    part = lay_out_branches(TEMPLATE, events_of(4, 0), [1, 2], tasks=["time"])
    segments = batcher(VOCABULARY)(row_of([part])).segments
    assert (segments.groups, len(segments.blocks)) == (None, 1)
    for lengths in ([30], [60, 30], [SHORT_TOKENS + 1] * 2):
        assert group_segments(lengths) is None
    row, _ = _row(MANY)
    groups = batcher(VOCABULARY)(row).segments.groups
    assert groups is not None
    assert len(groups.shapes) < len(MANY) / 3


def test_many_short_segments_have_losses_and_gradients_of_separate_forwards():
    model = EventModel(tiny_backbone(VOCABULARY))
    move = batcher(VOCABULARY, blank_frame=False)
    row = random_row(VOCABULARY, MANY, seed=1)
    results = []
    for rows in ([row], split_row(row)):
        model.zero_grad()
        nll = torch.cat([model(move(part))[0] for part in rows])
        nll.mean().backward()
        gradients = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        results.append((nll.detach(), gradients))
    (packed, gradients), (separate, separate_gradients) = results
    # measured 2026-11-30: at most 3.1e-5 nats
    torch.testing.assert_close(packed, separate, rtol=0, atol=2e-4)
    assert gradients.keys() == separate_gradients.keys()
    for name, gradient in gradients.items():
        expected = separate_gradients[name]
        # measured 2026-11-30: at most 6.4e-7
        assert (gradient - expected).abs().max() < 2e-5 * expected.abs().max(), name
