"""The metrics that the training loop logs at each step. Models, Ray and storage are stand-ins;
``tests/on_ray/test_train.py`` runs the same loop with the real ones."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from mmtpp.core.loss_sums import LossSums
from mmtpp.core.tokens import Modality
from mmtpp.train import loop
from mmtpp.train.checkpoint import BEST_BY, TrainingProgress

NUM_STEPS, VALIDATE_EVERY, LOG_EVERY = 8, 4, 1
TASK = SimpleNamespace(
    validation=True, reports_validation=False, output_uri="", run=SimpleNamespace(run_uri="")
)


class _Telemetry:
    """Timings without a clock."""

    def __init__(self) -> None:
        self.steps = 0

    def add_step(self, tokens: int, labels: int, flops: float) -> None:
        del tokens, labels, flops
        self.steps += 1

    def flush(self) -> dict[str, float]:
        steps, self.steps = self.steps, 0
        return {"time/step_s": 1.0, "speed/tokens_per_s": float(steps)}

    waiting_for_data = validating = saving = staticmethod(nullcontext)


def _losses(step: int) -> LossSums:
    """The loss of one label, equal to the number of the step."""
    return LossSums.from_labels(np.array([float(step)]), np.array([int(Modality.TIME)]))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, float]]]:
    """All calls to the tracker of a run, from its first step."""
    calls: list[tuple[int, dict[str, float]]] = []
    watchdog = SimpleNamespace(enter=lambda *_, **__: None, stop=lambda: None)
    training = SimpleNamespace(
        num_steps=NUM_STEPS,
        log_every=LOG_EVERY,
        validate_every=VALIDATE_EVERY,
        checkpoint_every=100,
        samples_per_step=1,
        seed=0,
        upload_timeout_s=1.0,
    )
    worker = SimpleNamespace(
        training=training,
        progress=TrainingProgress(0, "plan", "vocabulary"),
        watchdog=watchdog,
        telemetry=_Telemetry(),
        rows=iter(lambda: "row", None),
        rows_per_step=1,
        engine=SimpleNamespace(passes=[1]),
        batcher=SimpleNamespace(device="cpu"),
        step_context=None,
        enter_micro_batch=lambda *_: None,
        flop_counter=lambda _: SimpleNamespace(total=1.0),
        num_ranks=1,
        rank=0,
        plan=SimpleNamespace(samples=[0]),
        constant_metrics={"model/trained_parameters": 1.0},
        task=TASK,
        tracker=SimpleNamespace(
            log_metrics=lambda step, metrics: calls.append((step, dict(metrics))),
            close=lambda _: None,
        ),
        interruptions=SimpleNamespace(
            poll=lambda _: SimpleNamespace(stop_requested=False, machine_leaves=False)
        ),
    )

    def train_step(_context: object, _rows: object, step: int, **_: object) -> SimpleNamespace:
        number = step + 1
        return SimpleNamespace(
            losses=_losses(number), num_tokens=1, grad_norm=1.0, learning_rate=0.1 * number
        )

    context = SimpleNamespace(get_world_rank=lambda: 0)
    monkeypatch.setattr(loop.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(loop, "start_logging", lambda _: None)
    monkeypatch.setattr(loop, "build_worker", lambda *_: worker)
    monkeypatch.setattr(loop, "train_step", train_step)
    monkeypatch.setattr(
        loop, "validate", lambda _, number: {BEST_BY: 10.0 - number, "validation/accuracy": 0.5}
    )
    for name in ("save_checkpoint", "save_output", "remove_other_bests"):
        monkeypatch.setattr(loop, name, lambda *_, **__: None)
    return calls


def test_a_validation_is_logged_at_its_step_and_at_no_other(logged):
    result = loop.train(TASK, None)  # type: ignore[arg-type]
    validations = [step for step, metrics in logged if BEST_BY in metrics]
    assert validations == [4, 8]
    assert result[BEST_BY] == 10.0 - 8


def test_every_logged_step_has_its_own_values(logged):
    result = loop.train(TASK, None)  # type: ignore[arg-type]
    steps = [(step, metrics) for step, metrics in logged if "train/learning_rate" in metrics]
    assert [step for step, _ in steps] == list(range(1, NUM_STEPS + 1))
    for step, metrics in steps:
        assert metrics["train/loss_per_token"] == step
        assert metrics["train/learning_rate"] == pytest.approx(0.1 * step)
        assert metrics["speed/tokens_per_s"] == 1.0
        assert not [name for name in metrics if name.startswith(("validation/", "model/"))]
    assert (result["step"], result["best_step"]) == (8.0, 8.0)
    assert result["train/loss_per_token"] == 8
