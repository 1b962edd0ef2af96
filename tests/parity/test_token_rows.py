"""Compare embedding and head with PEFT and transformers, and chunks with a single chunk."""

import pytest
import torch

from mmtpp.model.event_model import EventModel
from mmtpp.model.parameters import token_rows
from mmtpp.model.parameters.lora import attach_lora
from tests.helpers.tiny_models import batcher, random_row, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
ROW = random_row(VOCABULARY, [50, 40], seed=1, images=False)


def _adapted(*, tied: bool) -> EventModel:
    """A model with trained rows that differ from the frozen rows that they replace."""
    torch.manual_seed(0)
    backbone = tiny_backbone(VOCABULARY)
    if not tied:
        backbone.config.tie_word_embeddings = False
        backbone.lm_head.weight = torch.nn.Parameter(backbone.lm_head.weight.detach().flip(0))
    model = EventModel(attach_lora(backbone, VOCABULARY.added_ids, rank=2, alpha=4, dropout=0.0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
def test_likelihoods_and_gradients_are_those_of_peft(tied: bool):
    ours, by_peft = _adapted(tied=tied), _adapted(tied=tied)
    added = set(VOCABULARY.added_ids)
    assert len([token for token in ROW.input_ids.tolist() if token in added]) < len(ROW.input_ids)
    row = random_row(VOCABULARY, [90], seed=2, images=False)
    row.input_ids[10:60] = VOCABULARY.added_ids[:50]
    batch = batcher(VOCABULARY)(row)
    nll, _ = ours(batch)
    nll.mean().backward()
    logits = by_peft.backbone(input_ids=batch.input_ids, use_cache=False).logits[0]
    expected = -logits.log_softmax(-1)[batch.labels - 1, batch.input_ids[0, batch.labels]]
    expected.mean().backward()
    torch.testing.assert_close(nll, expected, rtol=0, atol=2e-4)
    gradients = {
        name: parameter.grad
        for name, parameter in by_peft.named_parameters()
        if parameter.grad is not None
    }
    assert sum("trainable_tokens" in name for name in gradients) == (1 if tied else 2)
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("labels", [1, 7, 89])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, labels: int):
    batch = batcher(VOCABULARY)(ROW)
    type_ids = torch.tensor(VOCABULARY.type_ids([0, 1, 2]))
    results = []
    for chunk in (labels, 10**6):
        model = _adapted(tied=True)
        monkeypatch.setattr(token_rows, "LOGITS_BYTES", 4 * model.head.num_tokens * chunk)
        nll, best = model(batch, type_ids)
        (nll * torch.arange(len(nll))).sum().backward()
        gradients = [
            parameter.grad for parameter in model.parameters() if parameter.grad is not None
        ]
        results.append((nll.detach(), best, gradients))
    (nll, best, gradients), (nll_whole, best_whole, gradients_whole) = results
    torch.testing.assert_close(nll, nll_whole, rtol=0, atol=1e-4)  # with losses up to 80
    assert torch.equal(best, best_whole)
    assert len(gradients) == len(gradients_whole) > 10
    for gradient, whole in zip(gradients, gradients_whole, strict=True):
        torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-3)


def test_only_one_chunk_has_its_logits(monkeypatch: pytest.MonkeyPatch):
    """The tensors that the head saves for the backward pass are smaller than all logits."""
    model = _adapted(tied=True)
    num_tokens = model.head.num_tokens
    monkeypatch.setattr(token_rows, "LOGITS_BYTES", 4 * num_tokens * 8)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        hidden = torch.randn(64, 96, requires_grad=True)
        model.head(hidden, torch.arange(64), None)
    assert kept
    assert max(kept) < 8 * num_tokens
