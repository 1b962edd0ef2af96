"""The training loop by itself: what it logs at which step. Models, Ray and storage are stand-ins;
``tests/on_ray/test_train.py`` runs the same loop with the real ones."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from mmtpp.core.loss_sums import LossSums
from mmtpp.core.tokens import Modality
from mmtpp.train import loop
from mmtpp.train.checkpoint import BEST_BY, Progress

NUM_STEPS, VALIDATE_EVERY, LOG_EVERY = 8, 4, 1


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
    """One label whose loss is the number of the step."""
    return LossSums.from_labels(np.array([float(step)]), np.array([int(Modality.TIME)]))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, float]]]:
    """All calls to the tracker of a run, from its first step."""
    calls: list[tuple[int, dict[str, float]]] = []
    nothing = SimpleNamespace(at=lambda *_, **__: None, stop=lambda: None)
    training = SimpleNamespace(
        num_steps=NUM_STEPS,
        log_every=LOG_EVERY,
        validate_every=VALIDATE_EVERY,
        checkpoint_every=100,
        samples_per_step=1,
        seed=0,
        upload_patience_s=1.0,
    )
    worker = SimpleNamespace(
        config=SimpleNamespace(training=training),
        progress=Progress(0, "plan", "vocabulary"),
        watchdog=nothing,
        telemetry=_Telemetry(),
        rows=iter(lambda: "row", None),
        share=1,
        engine=SimpleNamespace(passes=[1]),
        batcher=SimpleNamespace(device="cpu"),
        num_micro_batches=1,
        weigh=None,
        smoothing=None,
        is_at_micro_batch=lambda *_: None,
        flops=lambda _: SimpleNamespace(total=1.0),
        num_ranks=1,
        rank=0,
        plan=SimpleNamespace(samples=[0]),
        figures={"model/trained_parameters": 1.0},
        task=SimpleNamespace(
            validation=True,
            reports_validation=False,
            output_uri="",
            run=SimpleNamespace(run_uri=""),
        ),
        tracker=SimpleNamespace(
            metrics=lambda step, metrics: calls.append((step, dict(metrics))),
            close=lambda _: None,
        ),
        notices=SimpleNamespace(
            listen=lambda _: SimpleNamespace(is_to_stop=False, loses_machines=False)
        ),
    )

    def step(*_: object, **settings: object) -> SimpleNamespace:
        number = int(settings["step"]) + 1  # type: ignore[call-overload]
        return SimpleNamespace(
            losses=_losses(number), num_tokens=1, grad_norm=1.0, learning_rate=0.1 * number
        )

    context = SimpleNamespace(get_world_rank=lambda: 0)
    monkeypatch.setattr(loop.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(loop, "start_logging", lambda _: None)
    monkeypatch.setattr(loop, "set_up", lambda *_: worker)
    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(
        loop, "validate", lambda _, number: {BEST_BY: 10.0 - number, "validation/accuracy": 0.5}
    )
    for name in ("save", "save_output", "remove_other_bests"):
        monkeypatch.setattr(loop, name, lambda *_, **__: None)
    return calls


def test_a_validation_is_logged_at_its_step_and_at_no_other(logged):
    result = loop.train(SimpleNamespace(), None)  # type: ignore[arg-type]
    validations = [step for step, metrics in logged if BEST_BY in metrics]
    assert validations == [4, 8]
    assert result[BEST_BY] == 10.0 - 8


def test_every_logged_step_has_its_own_values(logged):
    result = loop.train(SimpleNamespace(), None)  # type: ignore[arg-type]
    steps = [(step, metrics) for step, metrics in logged if "train/learning_rate" in metrics]
    assert list(range(1, NUM_STEPS + 1)) == [step for step, _ in steps]
    for step, metrics in steps:
        assert step == metrics["train/loss_per_token"]
        assert 0.1 * step == pytest.approx(metrics["train/learning_rate"])
        assert metrics["speed/tokens_per_s"] == 1.0
        assert not [name for name in metrics if name.startswith(("validation/", "model/"))]
    assert (result["step"], result["best_step"]) == (8.0, 8.0)
    assert result["train/loss_per_token"] == 8
