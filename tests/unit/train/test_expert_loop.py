"""The speed of an expert's training, without its validations and checkpoints."""

from types import SimpleNamespace

import pytest

from mmtpp.expert.network_losses import NetworkLosses
from mmtpp.train import expert_loop


class _Clock:
    """Replaces the module ``time``: its time is set by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class _MetricsList:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self.logged.append((step, metrics))


def test_validations_and_checkpoints_are_not_training(monkeypatch: pytest.MonkeyPatch):
    clock, tracker = _Clock(), _MetricsList()
    monkeypatch.setattr(expert_loop, "time", clock)
    progress_log = expert_loop._ProgressLog(tracker, every=2)  # pyright: ignore[reportArgumentType]
    for update, (validation_s, checkpoint_s) in enumerate([(3.0, 1.0), (0.0, 0.0)] * 2, start=1):
        clock.now += 2.0
        fit = SimpleNamespace(total_steps=update)
        progress_log.add(fit, NetworkLosses(1.0, 0.5, 40))  # pyright: ignore[reportArgumentType]
        with progress_log.outside_training("validation"):
            clock.now += validation_s
        with progress_log.outside_training("checkpoint"):
            clock.now += checkpoint_s
    metrics = {
        "train/joint_nll_nats_per_event": 1.5,
        "speed/events_per_s": 20.0,
        "time/validation_fraction": 3 / 8,
        "time/checkpoint_fraction": 1 / 8,
    }
    assert tracker.logged == [(2, metrics), (4, metrics)]
