"""The metrics that the training loop logs at each step. Models, Ray and storage are stand-ins;
``tests/on_ray/test_train.py`` runs the same loop with the real ones."""

from typing import Any

import pytest

from mmtpp.config.schema import TrainingSection
from mmtpp.train.checkpoints.checkpoint import BEST_BY
from mmtpp.train.loop import run_loop
from mmtpp.train.outcome import TrainingOutcome
from mmtpp.train.ranks.interruption_poll import InterruptionState
from mmtpp.train.ranks.watchdog import Stage
from tests.unit.train.fake_worker import RecordedRun, fake_worker

NUM_STEPS, VALIDATE_EVERY, LOG_EVERY = 8, 4, 1


def record_run(**changes: Any) -> RecordedRun:
    """Run the loop of a worker with stand-ins.

    Args:
        changes: Further arguments of ``fake_worker``.
    """
    training = TrainingSection(
        num_steps=NUM_STEPS,
        log_every=LOG_EVERY,
        validate_every=VALIDATE_EVERY,
        checkpoint_every=100,
        samples_per_step=1,
        seed=0,
        upload_timeout_s=1.0,
    )
    run = RecordedRun()
    run_loop(fake_worker(training, run, **changes))
    return run


@pytest.fixture
def run() -> RecordedRun:
    """A run from its first step to its last."""
    return record_run()


def test_a_validation_is_logged_at_its_step_and_at_no_other(run):
    (result,) = run.saved
    validations = [step for step, metrics in run.logged if BEST_BY in metrics]
    assert validations == [4, 8]
    assert result[BEST_BY] == 10.0 - 8


def test_every_logged_step_has_its_own_values(run):
    (result,) = run.saved
    steps = [(step, metrics) for step, metrics in run.logged if "train/learning_rate" in metrics]
    assert [step for step, _ in steps] == list(range(1, NUM_STEPS + 1))
    for step, metrics in steps:
        assert metrics["train/loss_per_token"] == step
        assert metrics["train/learning_rate"] == pytest.approx(0.1 * step)
        assert metrics["speed/tokens_per_s"] == 1.0
        assert not [name for name in metrics if name.startswith(("validation/", "model/"))]
    assert (result["step"], result["best_step"]) == (8.0, 8.0)
    assert result["train/loss_per_token"] == 8


def test_the_start_up_is_logged_once_after_the_first_step(run):
    logged = [(step, metrics) for step, metrics in run.logged if "start_up/total_s" in metrics]
    expected = {"start_up/checks_s": 1.5, "start_up/first_update_s": 2.5, "start_up/total_s": 4.0}
    assert logged == [(1, expected)]


def test_positions_only_grow(run):
    """The watchdog calls the rank with the smallest position the one that hangs."""
    assert run.positions == sorted(run.positions)
    assert {stage for _, stage in run.positions} >= {
        Stage.SAVING,
        Stage.WAITING_FOR_DATA,
        Stage.COMPUTING,
    }


def test_a_requested_stop_saves_a_checkpoint_and_no_model():
    stop = InterruptionState(machine_leaves=False, stop_requested=True)
    run = record_run(interruptions={3: stop})
    (saved,) = run.saved
    assert TrainingOutcome.from_report(saved)[0] == TrainingOutcome(3, 0, is_finished=False)
    assert run.outputs == []


def test_a_stop_after_the_last_step_is_too_late():
    stop = InterruptionState(machine_leaves=False, stop_requested=True)
    run = record_run(interruptions={NUM_STEPS: stop})
    (saved,) = run.saved
    assert TrainingOutcome.from_report(saved)[0].is_finished
    assert run.outputs[-1] == NUM_STEPS


def test_a_leaving_machine_brings_a_checkpoint():
    leaves = InterruptionState(machine_leaves=True, stop_requested=False)
    run = record_run(interruptions={2: leaves, 4: leaves})
    without_validation, with_validation, at_end = run.saved
    assert without_validation == {}
    assert with_validation[BEST_BY] == 10.0 - 4
    assert TrainingOutcome.from_report(at_end)[0].is_finished


def test_validations_are_reported_for_a_scheduler():
    run = record_run(reports_validation=True)
    (reported,) = run.reported
    assert (reported["step"], reported[BEST_BY]) == (4.0, 10.0 - 4)
