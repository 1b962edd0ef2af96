"""Which step of a training is the best one."""

import math

import pytest

from mmtpp.train.checkpoints.checkpoint import TrainingProgress

BEST_BY = "validation/weighted_loss_per_token"


def _best_step(*validations: dict[str, float]) -> int:
    progress = TrainingProgress(step=0, plan_fingerprint="p", vocabulary_hash="v")
    for validation in validations:
        progress = progress.after_step().with_validation(validation)
    return progress.best_step


def test_the_weights_of_the_loss_decide():
    """Texts dominate the loss over all labels, whatever their weight in the training."""
    first = {"validation/loss_per_token": 4.0, BEST_BY: 1.0}
    second = {"validation/loss_per_token": 2.0, BEST_BY: 1.5}
    assert _best_step(first, second) == 1
    assert _best_step(second, first) == 2
    assert _best_step(first, first) == 1


def test_the_best_of_an_earlier_version_is_not_compared():
    """It was chosen by another loss, and its checkpoint does not say by which."""
    old = TrainingProgress(4, "p", "v", best_step=4, best_loss=0.1)
    progress = old.after_step().with_validation({BEST_BY: 0.5})
    assert (progress.best_step, progress.best_loss) == (5, 0.5)


def test_without_labels_of_positive_weight_no_step_is_the_best():
    assert _best_step({"validation/loss_per_token": 4.0}) == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_makes_no_step_the_best(loss: float):
    assert _best_step({BEST_BY: 1.0}, {BEST_BY: loss}, {BEST_BY: 5.0}) == 1
    assert _best_step({BEST_BY: loss}, {BEST_BY: 5.0}) == 2
