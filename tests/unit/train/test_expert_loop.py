"""What the training of an expert reports: speed and validations."""

from types import SimpleNamespace

import pytest

from mmtpp.expert.network_losses import NetworkLosses
from mmtpp.runtime.start_up import StartUp
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


class _Fit:
    """A training of four steps in one network, which is validated after the second."""

    def __init__(self) -> None:
        self.total_steps = 0
        self.progress = SimpleNamespace(network=0)

    @property
    def is_finished(self) -> bool:
        return self.total_steps == 4

    @property
    def validation_is_due(self) -> bool:
        return self.total_steps == 2

    def run_step(self) -> NetworkLosses:
        self.total_steps += 1
        return NetworkLosses(1.0, 0.5, 40)

    def record_validation(self, losses: NetworkLosses | None) -> None:
        assert losses == NetworkLosses(2.0, 1.0, 40)


def test_a_checkpoint_between_validations_has_no_old_validation(monkeypatch: pytest.MonkeyPatch):
    """A scheduler would take it for a validation of the new step."""
    fit, saved = _Fit(), []
    validation = {"validation/joint_nll_nats_per_event": 3.0}
    stand_ins = {
        "build_fit": lambda *_: fit,
        "restore_expert_checkpoint": lambda *_: None,
        "_validate": lambda *_: (NetworkLosses(2.0, 1.0, 40), validation),
        "save_expert_checkpoint": lambda *arguments, **_: saved.append(arguments[3]),
        "build_expert": lambda *_: None,
        "final_metrics": lambda *_: {"final": 1.0},
        "with_surprise_limit": lambda expert, *_: expert,
        "write_expert": lambda *_: None,
        "warn_below_marginal": lambda *_, **__: None,
        "build_rank_tracker": lambda *_, **__: SimpleNamespace(
            log_metrics=lambda *_: None, detach=lambda: None
        ),
        "start_logging": lambda _: None,
        "remove_leftovers": lambda _: None,
        "InterruptionPoll": lambda _: SimpleNamespace(
            poll=lambda _: SimpleNamespace(
                machine_leaves=fit.total_steps in (2, 3), stop_requested=False
            )
        ),
    }
    for name, stand_in in stand_ins.items():
        assert hasattr(expert_loop, name)
        monkeypatch.setattr(expert_loop, name, stand_in)
    one_rank = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_local_rank=lambda: 0
    )
    monkeypatch.setattr(expert_loop.ray.train, "get_context", lambda: one_rank)
    store = SimpleNamespace(data_uri="store")
    inputs = SimpleNamespace(
        run=SimpleNamespace(run_uri="run"),
        tracking=None,
        log_every=0,
        reports_validation=False,
        start_up=StartUp.begin(),
        train_sequence_settings=SimpleNamespace(sample_settings=SimpleNamespace(store=store)),
    )
    expert_loop.train_expert(inputs, None)  # pyright: ignore[reportArgumentType]
    assert saved == [
        {**validation, "step": 2.0},
        {"step": 3.0},
        {"final": 1.0, "step": 4.0, "best_step": 0.0, "is_finished": 1.0},
    ]
