"""Sums of losses by hand."""

import numpy as np
import pytest

from mmtpp.core.representation.tokens import Modality
from mmtpp.core.training.loss_sums import LossSums

TIME, TEXT = Modality.TIME, Modality.TEXT


def test_losses_by_hand():
    losses = LossSums.from_labels(
        np.array([1.0, 2.0, 6.0]), np.array([TIME, TIME, TEXT]), np.array([1.0, 1.0, 0.5])
    )
    assert losses.per_token("train") == {
        "train/loss_per_token": 3.0,
        "train/time_loss_per_token": 1.5,
        "train/text_loss_per_token": 6.0,
        "train/weighted_loss_per_token": pytest.approx((1 + 2 + 3) / 2.5),
    }


def test_the_sums_of_ranks_are_those_of_all_labels():
    nll, weights = np.array([1.0, 2.0, 6.0]), np.array([1.0, 0.0, 0.5])
    modality = np.array([TIME, TIME, TEXT])
    parts = [
        LossSums.from_labels(nll[part], modality[part], weights[part])
        for part in (slice(0, 1), slice(1, 3))
    ]
    whole = LossSums.from_labels(nll, modality, weights).per_token("x")
    assert sum(parts[1:], parts[0]).per_token("x") == whole
    assert LossSums.from_array(parts[0].as_array() + parts[1].as_array()).per_token("x") == whole


def test_without_weights_there_is_no_weighted_loss():
    for weights in (None, np.zeros(1)):
        losses = LossSums.from_labels(np.ones(1), np.array([TEXT]), weights)
        assert set(losses.per_token("x")) == {"x/loss_per_token", "x/text_loss_per_token"}
