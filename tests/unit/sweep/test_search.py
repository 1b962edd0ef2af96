"""Ray Tune's searchers and schedulers, and how many trials run at a time."""

import json
import math

import pytest

from mmtpp.runtime.machines import ResourceDemand
from mmtpp.sweep.search import (
    build_scheduler,
    build_searcher,
    draw_trials,
    max_concurrent_trials,
    param_space,
)
from mmtpp.sweep.sweep_settings import Domain


def test_draws_from_a_range_include_both_ends_and_nothing_outside(sweep_of):
    sweep = sweep_of(
        '[space]\n"lora.rank" = {low = 1, high = 3}\n'
        '"lora.alpha" = {low = 8, high = 32, step = 8}\n'
        '"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
        '"training.samples_per_step" = {low = 1, high = 64, log = true}\n',
        "sweep.searcher=random",
        "sweep.num_trials=4",
    )
    drawn = {
        key: [domain.sample() for _ in range(400)]
        for key, domain in param_space(sweep, is_grid=False).items()
    }
    assert set(drawn["lora.rank"]) == {1, 2, 3}
    assert set(drawn["lora.alpha"]) == {8, 16, 24, 32}
    rates = [math.log10(rate) for rate in drawn["training.learning_rate"]]
    assert min(rates) >= -4
    assert max(rates) <= -2
    assert abs(sum(rates) / 400 + 3) < 0.15  # evenly in the logarithm
    assert {1, 64} >= {min(drawn["training.samples_per_step"])}
    assert max(drawn["training.samples_per_step"]) <= 64


def test_searcher_and_scheduler_are_those_in_the_settings(sweep_of):
    rates = '[space]\n"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
    chosen = ["sweep.searcher=random", "sweep.num_trials=4"]
    asha = sweep_of(rates, *chosen, 'sweep.scheduler={kind = "asha", every_steps = 5}')
    assert asha.trial_config({}).training.validate_every == 5
    assert "AsyncHyperBand" in type(build_scheduler(asha)).__name__
    pbt = sweep_of(rates, *chosen, 'sweep.scheduler={kind = "pbt", every_steps = 7}')
    assert pbt.trial_config({}).training.checkpoint_every == 7
    assert pbt.trial_config({}).training.keep_checkpoints == 1 + 1000 // 7
    assert "PopulationBased" in type(build_scheduler(pbt)).__name__
    both = 'sweep.metric=["validation/loss_per_token", "data/tokens_per_event"]'
    front = sweep_of(
        rates, "sweep.searcher=optuna", "sweep.num_trials=4", both, 'sweep.mode=["min", "min"]'
    )
    assert "Optuna" in type(build_searcher(front, [], concurrent_trials=1).searcher).__name__  # pyright: ignore[reportAttributeAccessIssue]


def test_concurrent_trials_never_hold_resources_another_waits_for():
    need = ResourceDemand("workers", 2, {"CPU": 1.0}, {}, "")
    assert max_concurrent_trials(need, [{"CPU": 2.0}], at_most=0) == 1
    assert max_concurrent_trials(need, [{"CPU": 9.0}], at_most=0) == 4
    assert (
        max_concurrent_trials(need, [{"CPU": 3.5}, {"CPU": 3.5}, {"memory": 1e9}], at_most=0) == 3
    )
    assert max_concurrent_trials(need, [{"CPU": 9.0}], at_most=3) == 3
    on_gpus = ResourceDemand("workers", 2, {"CPU": 1.0, "GPU": 1.0}, {}, "")
    assert max_concurrent_trials(on_gpus, [{"CPU": 9.0, "GPU": 2.0}] * 100, at_most=0) == 100


def test_a_population_stays_in_its_ranges(sweep_of):
    rates = '[space]\n"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
    pbt = build_scheduler(
        sweep_of(
            rates,
            "sweep.searcher=random",
            "sweep.num_trials=4",
            'sweep.scheduler={kind = "pbt", every_steps = 7}',
        )
    )
    assert pbt._custom_explore_fn({"training.learning_rate": 1.2e-2}) == {  # pyright: ignore[reportAttributeAccessIssue]
        "training.learning_rate": 1e-2
    }


def test_the_nearest_value_of_a_range_is_one_of_its_steps():
    whole = Domain(low=4, high=12, step=4)
    assert [whole.nearest(value) for value in (0, 5.9, 6.1, 11, 40)] == [4, 4, 8, 12, 12]
    assert isinstance(whole.nearest(9.6), int)
    assert [
        Domain(low=0.05, high=1.0, step=0.05).nearest(value) for value in (0.07, 0.13)
    ] == pytest.approx([0.05, 0.15])
    assert Domain(low=0.5, high=1.0).nearest(0.6) == 0.6
    assert Domain(low=128, high=512).probes() == [128, 129, 320, 512]
    assert Domain(low=1e-4, high=1e-2, log=True).probes() == pytest.approx([1e-4, 1e-3, 1e-2])


def test_trials_are_drawn_from_the_space_and_the_same_for_a_seed(sweep_of):
    sweep = sweep_of(
        '[space]\n"lora.rank" = {low = 1, high = 3}\n"training.loss_weights" = [{text = 0.1}]\n'
        '"model.tiny_width" = [24, 48]\n',
        "sweep.searcher=random",
        "sweep.num_trials=4",
    )
    trials = draw_trials(sweep, 50, seed=1)
    assert trials == draw_trials(sweep, 50, seed=1) != draw_trials(sweep, 50, seed=2)
    assert {trial["lora.rank"] for trial in trials} == {1, 2, 3}
    assert {trial["model.tiny_width"] for trial in trials} == {24, 48}
    assert all(trial["training.loss_weights"] == {"text": 0.1} for trial in trials)
    json.dumps(trials)  # fails for NumPy scalars
