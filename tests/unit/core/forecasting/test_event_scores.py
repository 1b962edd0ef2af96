"""Scores by event, on numbers that are small enough to add by hand."""

import numpy as np

from mmtpp.core.forecasting.event_scores import score_events
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.training.loss_sums import LossSums

TIME, TYPE, TEXT, CONTROL = Modality.TIME, Modality.TYPE, Modality.TEXT, Modality.CONTROL


def test_the_interval_costs_every_token_up_to_its_last_byte():
    modality = np.array([CONTROL, TIME, TIME, CONTROL, TYPE, TEXT, CONTROL, CONTROL, TIME, TYPE])
    event = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 2])  # event 1 is one similar-event token
    nll = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], dtype=float)
    best = np.arange(10)
    scores = score_events(nll, modality, event, best)
    assert scores.event.tolist() == [0, 2]
    assert scores.interval_code_nll.tolist() == [1 + 2 + 4, 256]
    assert scores.type_nll.tolist() == [16, 512]
    assert scores.text_nll.tolist() == [32, 0]
    assert scores.nll.tolist() == [1 + 2 + 4 + 8 + 16 + 32 + 64, 256 + 512]
    assert scores.predicted_type.tolist() == [4, 9]
    losses = LossSums.from_labels(nll, modality)
    metrics = (losses + losses).per_token("x")
    assert metrics["x/loss_per_token"] == nll.mean()
    assert metrics["x/time_loss_per_token"] == (2 + 4 + 256) / 3


def test_a_window_without_full_events_scores_none():
    scores = score_events(np.ones(2), np.array([CONTROL, CONTROL]), np.array([0, 1]), np.zeros(2))
    assert len(scores.event) == 0
