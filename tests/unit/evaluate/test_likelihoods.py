"""Losses and perplexities of windows, by hand."""

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.evaluate.likelihoods import loss_metrics


def test_perplexities_leave_out_tokens_of_the_template():
    # nats and labels of each window: masked, time, type, text, control
    windows = pa.table(
        {
            "window_nll": [[0.0, 6.0, 2.0, 4.0, 30.0], None, [0.0, 2.0, 1.0, 1.0, 10.0]],
            "window_tokens": [[0.0, 4.0, 2.0, 5.0, 8.0], None, [0.0, 2.0, 1.0, 2.0, 4.0]],
            "window_events": [2, None, 3],  # the second window compresses two of its three events
        }
    )
    metrics = loss_metrics(windows)
    assert metrics["likelihood/content_nll_nats_per_event"] == pytest.approx(
        (6 + 2 + 4 + 2 + 1 + 1) / 5
    )
    assert metrics["likelihood/nll_nats_per_event"] == pytest.approx(56 / 5)
    assert metrics["likelihood/perplexity_per_token"] == pytest.approx(np.exp(16 / 16))
    assert metrics["likelihood/time_loss_per_token"] == pytest.approx(8 / 6)
    assert metrics["likelihood/loss_per_token"] == pytest.approx(56 / 28)
