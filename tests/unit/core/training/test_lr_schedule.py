"""The learning-rate schedule, by hand."""

import numpy as np
import pytest
import torch

from mmtpp.core.training.lr_schedule import lr_factor


def test_schedule_rises_and_falls():
    factors = [
        lr_factor(step, num_steps=11, warmup_fraction=0.2, final_fraction=0.1) for step in range(11)
    ]
    # by hand: two warm-up steps of thirds, then nine values from 1 to 0.1
    assert factors[:2] == pytest.approx([1 / 3, 2 / 3])
    assert factors[2:] == pytest.approx(np.linspace(1, 0.1, 9).tolist())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_after_the_warm_up_the_schedule_equals_torchs(schedule: str):
    """Peak 1 and final factor 0.1; torch's schedulers start after the warm-up of two steps."""
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    num_decay_steps = 8
    scheduler = {
        "linear": lambda: schedulers.LinearLR(optimizer, 1.0, 0.1, num_decay_steps),
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, num_decay_steps, eta_min=0.1),
        "constant": lambda: schedulers.ConstantLR(optimizer, 1.0, num_decay_steps),
    }[schedule]()
    expected = []
    for _ in range(num_decay_steps + 1):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    factors = [
        lr_factor(step, num_steps=11, warmup_fraction=0.2, final_fraction=0.1, schedule=schedule)
        for step in range(11)
    ]
    assert factors[:2] == pytest.approx([1 / 3, 2 / 3])
    assert factors[2:] == pytest.approx(expected)


def test_the_cosine_by_hand():
    """Half a cosine from 1 to 0.2 in four steps: 0.2 + 0.8 (1 + cos x) / 2."""
    factors = [
        lr_factor(step, num_steps=5, warmup_fraction=0, final_fraction=0.2, schedule="cosine")
        for step in range(5)
    ]
    assert factors == pytest.approx([1.0, 0.6 + 0.4 * 0.5**0.5, 0.6, 0.6 - 0.4 * 0.5**0.5, 0.2])
