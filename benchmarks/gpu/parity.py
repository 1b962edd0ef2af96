"""Parity on a device: packed against separate and masked passes, branches, cache, and the CPU.

Axes: T tokens, N labels.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gpu.rows import (
    VOCABULARY,
    append_tokens,
    build_backbone,
    build_batcher,
    enlarge_weights,
    make_branched_row,
    make_row,
    split,
)
from mmtpp.core.representation.row import PackedRow
from mmtpp.model.decoding.cached_history import CachedHistory
from mmtpp.model.event_model import EventModel

LIMITS = {torch.float32: 2e-3, torch.bfloat16: 0.2}
"""Largest mean difference of a likelihood, in nats; of a gradient, relative to its norm."""
WINDOWS = [40, 3, 70, 17]  # events


@dataclass(frozen=True, slots=True)
class Check:
    """A comparison of two computations.

    Attributes:
        name: What is compared.
        dtype: Type of the weights.
        mean: Mean difference in nats, or the relative difference of gradients.
        largest: Largest difference.
        limit: Limit of ``mean``.
    """

    name: str
    dtype: torch.dtype
    mean: float
    largest: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within its limit; False for a value that is not a number."""
        return self.mean <= self.limit


def run_checks(device: torch.device, *, is_tiny: bool) -> list[Check]:
    """All comparisons, in float32 and in bfloat16.

    Args:
        device: Device that is checked.
        is_tiny: Whether the tiny model is used, or two layers of the 3B.
    """
    checks: list[Check] = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = build_backbone(is_tiny=is_tiny, layers=2, dtype=dtype, device=device)
        enlarge_weights(backbone)
        model = EventModel(backbone).eval()
        checks += [
            _packed(model, dtype, device),
            _masked(model, dtype, device),
            _branches(model, dtype, device),
            _cache(model, dtype, device),
        ]
        if dtype == torch.float32:
            checks.append(_gradients(model, device))
    return checks


@torch.no_grad()
def _nll(
    model: EventModel, row: PackedRow, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    return model(build_batcher(dtype, device)(row))[0].double().cpu()


def _compare(name: str, dtype: torch.dtype, first: torch.Tensor, second: torch.Tensor) -> Check:
    difference = (first.double().cpu() - second.double().cpu()).abs()
    return Check(name, dtype, float(difference.mean()), float(difference.max()), LIMITS[dtype])


def _packed(model: EventModel, dtype: torch.dtype, device: torch.device) -> Check:
    row = make_row(WINDOWS)
    together = _nll(model, row, dtype, device)
    apart = torch.cat([_nll(model, part, dtype, device) for part in split(row)])
    return _compare("windows packed in a row, against one pass each", dtype, together, apart)


@torch.no_grad()
def _masked(model: EventModel, dtype: torch.dtype, device: torch.device) -> Check:
    """Packed attention against transformers' attention with a mask of the whole row."""
    row = make_row(WINDOWS)
    batch = build_batcher(dtype, device)(row)
    segment = torch.as_tensor(row.segment, device=device)
    sees = (segment[:, None] == segment) & torch.ones(
        len(segment), len(segment), dtype=torch.bool, device=device
    ).tril()
    mask = torch.where(sees, 0.0, -torch.inf).to(dtype)[None, None]
    hidden = model.language_model(
        **model.inputs(batch),
        position_ids=model.family.position_ids(batch.position_ids),
        attention_mask={"full_attention": mask},
        use_cache=False,
    ).last_hidden_state[0]
    targets = batch.input_ids[0, batch.labels]
    masked = model.head(hidden[batch.predictors], targets, None)[0]
    return _compare(
        "packed attention, against a masked pass", dtype, _nll(model, row, dtype, device), masked
    )


@torch.no_grad()
def _branches(model: EventModel, dtype: torch.dtype, device: torch.device) -> Check:
    """Each question in its branch against a row of its own."""
    row = make_branched_row(24)
    assert row.questions is not None
    move = build_batcher(dtype, device)
    image_pad = VOCABULARY.special("<|image_pad|>")
    asked = np.linspace(0, len(row.questions.at) - 1, 12).astype(int)
    hidden = model.hidden(move(row))
    ids = torch.tensor(VOCABULARY.token_ids().byte_ids, device=device)
    in_branch = model.head.choose(hidden[row.questions.at[asked].tolist()], ids)
    alone = []
    for question in asked.tolist():
        plain = row.before_question(question, image_pad=image_pad, with_question=True)
        alone.append(model.head.choose(model.hidden(move(plain))[-1:], ids))
    return _compare(
        "questions in branches, against rows of their own", dtype, in_branch, torch.cat(alone)
    )


@torch.no_grad()
def _cache(model: EventModel, dtype: torch.dtype, device: torch.device) -> Check:
    """Tokens decoded with a cache against one pass."""
    history = make_row([30])
    move = build_batcher(dtype, device)
    later = np.array(VOCABULARY.token_ids().byte_ids[3:11], dtype=np.int32)
    row = append_tokens(history, later)
    cache = CachedHistory.build(model, move(history), 2)
    ids = torch.tensor(VOCABULARY.token_ids().byte_ids, device=device)
    whole = model.head.choose(model.hidden(move(row))[-len(later) :], ids)
    decoded = []
    for token in later.tolist():
        hidden = cache.append(np.full((2, 1), token))
        decoded.append(model.head.choose(hidden[:1], ids))
    return _compare(
        "tokens decoded with a cache, against one pass", dtype, torch.cat(decoded), whole
    )


def _gradients(model: EventModel, device: torch.device) -> Check:
    """Gradients on the device against those on the CPU, with images, in float32."""
    on_cpu = EventModel(copy.deepcopy(model.backbone).cpu()).eval()
    row = make_row([12, 5])
    gradients = []
    for part, place in ((model, device), (on_cpu, torch.device("cpu"))):
        part.zero_grad()
        part(build_batcher(torch.float32, place)(row))[0].mean().backward()
        gradients.append(
            {
                name: parameter.grad.double().cpu()
                for name, parameter in part.backbone.named_parameters()
                if parameter.grad is not None
            }
        )
    ours, theirs = gradients
    assert ours.keys() == theirs.keys()
    relative = [
        float((ours[name] - theirs[name]).norm() / theirs[name].norm().clamp(min=1e-12))
        for name in ours
    ]
    return Check(
        "gradients, against the CPU (relative)",
        torch.float32,
        float(np.mean(relative)),
        float(np.max(relative)),
        LIMITS[torch.float32],
    )
