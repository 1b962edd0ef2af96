"""The learning-rate schedule, by hand."""

import numpy as np
import pytest

from mmtpp.core.training.lr_schedule import lr_factor


def test_schedule_rises_and_falls():
    factors = [
        lr_factor(step, num_steps=11, warmup_fraction=0.2, final_fraction=0.1) for step in range(11)
    ]
    # by hand: two warm-up steps of thirds, then nine values from 1 to 0.1
    assert factors[:2] == pytest.approx([1 / 3, 2 / 3])
    assert factors[2:] == pytest.approx(np.linspace(1, 0.1, 9).tolist())
