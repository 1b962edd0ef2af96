"""Spread labels have the gradient of PyTorch's cross-entropy with probabilities."""

import numpy as np
import torch
from torch.nn import functional

from mmtpp.model.batch import SpreadLabels
from mmtpp.model.event_model import EventModel
from tests.helpers.tiny_models import tiny_backbone, tiny_vocabulary


def test_the_loss_is_for_the_label_and_the_gradient_for_the_spread_label():
    vocabulary = tiny_vocabulary()
    head = EventModel(tiny_backbone(vocabulary)).head
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, head.weight.shape[1], generator=generator, requires_grad=True)
    base = vocabulary.byte_base
    targets = torch.tensor([base + 5, 3, base + 200, 17, base, base + 9])
    place = torch.tensor([1, 0, 2, 0, 0, 3])
    weights = torch.rand(4, 256, generator=generator)
    weights = weights / weights.sum(dim=1, keepdim=True)
    spread = SpreadLabels(torch.arange(base, base + 256), place, weights)

    nll, _ = head(hidden, targets, None, spread)
    (actual,) = torch.autograd.grad(nll.sum(), hidden)
    plain, _ = head(hidden, targets, None)
    np.testing.assert_allclose(nll.detach(), plain.detach(), rtol=1e-6)

    logits = head.logits(hidden)
    probabilities = functional.one_hot(targets, logits.shape[1]).float()
    for label, row in enumerate(place.tolist()):
        if row:
            probabilities[label] = 0
            probabilities[label, base : base + 256] = weights[row]
    expected = functional.cross_entropy(logits, probabilities, reduction="sum")
    (reference,) = torch.autograd.grad(expected, hidden)
    np.testing.assert_allclose(actual, reference, rtol=1e-4, atol=1e-6)
    (unspread,) = torch.autograd.grad(plain.sum(), hidden)
    assert (actual - unspread).abs().max() > 1e-2
