"""Ray Tune's searchers and schedulers, and how many trials run at a time."""

import json
import math

import pytest

from mmtpp.runtime.machines import Need
from mmtpp.sweep.search import concurrency, drawn, param_space, scheduler, searcher
from mmtpp.sweep.sweep_settings import Domain


def test_ranges_stay_within_their_ends_and_hold_both(sweep_of):
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
    assert {1, 2, 3} == set(drawn["lora.rank"])
    assert {8, 16, 24, 32} == set(drawn["lora.alpha"])
    rates = [math.log10(each) for each in drawn["training.learning_rate"]]
    assert -4 <= min(rates)
    assert max(rates) <= -2
    assert abs(sum(rates) / 400 + 3) < 0.15  # even in the logarithm
    assert {1, 64} >= {min(drawn["training.samples_per_step"])}
    assert max(drawn["training.samples_per_step"]) <= 64


def test_every_searcher_and_scheduler_is_the_one_asked_for(sweep_of):
    rates = '[space]\n"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
    chosen = ["sweep.searcher=random", "sweep.num_trials=4"]
    asha = sweep_of(rates, *chosen, 'sweep.scheduler={kind = "asha", every_steps = 5}')
    assert 5 == asha.trial_config({}).training.validate_every
    assert "AsyncHyperBand" in type(scheduler(asha)).__name__
    pbt = sweep_of(rates, *chosen, 'sweep.scheduler={kind = "pbt", every_steps = 7}')
    assert 7 == pbt.trial_config({}).training.checkpoint_every
    assert 1 + 1000 // 7 == pbt.trial_config({}).training.keep_checkpoints
    assert "PopulationBased" in type(scheduler(pbt)).__name__
    both = 'sweep.metric=["validation/loss_per_token", "data/tokens_per_event"]'
    front = sweep_of(rates, "sweep.searcher=optuna", "sweep.num_trials=4", both,
                     'sweep.mode=["min", "min"]')  # fmt: skip
    assert "Optuna" in type(searcher(front, [], at_once=1).searcher).__name__


def test_trials_at_a_time_never_hold_what_another_waits_for():
    need = Need("workers", 2, {"CPU": 1.0}, {}, "")
    assert 1 == concurrency(need, [{"CPU": 2.0}], at_most=0)
    assert 4 == concurrency(need, [{"CPU": 9.0}], at_most=0)
    assert 3 == concurrency(need, [{"CPU": 3.5}, {"CPU": 3.5}, {"memory": 1e9}], at_most=0)
    assert 3 == concurrency(need, [{"CPU": 9.0}], at_most=3)
    on_gpus = Need("workers", 2, {"CPU": 1.0, "GPU": 1.0}, {}, "")
    assert 100 == concurrency(on_gpus, [{"CPU": 9.0, "GPU": 2.0}] * 100, at_most=0)


def test_a_population_stays_in_its_ranges(sweep_of):
    rates = '[space]\n"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
    pbt = scheduler(sweep_of(rates, "sweep.searcher=random", "sweep.num_trials=4",
                             'sweep.scheduler={kind = "pbt", every_steps = 7}'))  # fmt: skip
    assert {"training.learning_rate": 1e-2} == pbt._custom_explore_fn(
        {"training.learning_rate": 1.2e-2}
    )


def test_the_nearest_value_of_a_range_is_on_its_steps():
    whole = Domain(low=4, high=12, step=4)
    assert [4, 4, 8, 12, 12] == [whole.nearest(each) for each in (0, 5.9, 6.1, 11, 40)]
    assert isinstance(whole.nearest(9.6), int)
    assert pytest.approx([0.05, 0.15]) == [
        Domain(low=0.05, high=1.0, step=0.05).nearest(each) for each in (0.07, 0.13)
    ]
    assert 0.6 == Domain(low=0.5, high=1.0).nearest(0.6)
    assert [128, 129, 320, 512] == Domain(low=128, high=512).probes()
    assert pytest.approx([1e-4, 1e-3, 1e-2]) == Domain(low=1e-4, high=1e-2, log=True).probes()


def test_trials_are_drawn_from_the_space_and_the_same_for_a_seed(sweep_of):
    sweep = sweep_of(
        '[space]\n"lora.rank" = {low = 1, high = 3}\n"training.loss_weights" = [{text = 0.1}]\n'
        '"model.tiny_width" = [24, 48]\n',
        "sweep.searcher=random",
        "sweep.num_trials=4",
    )
    trials = drawn(sweep, 50, seed=1)
    assert trials == drawn(sweep, 50, seed=1) != drawn(sweep, 50, seed=2)
    assert {1, 2, 3} == {each["lora.rank"] for each in trials}
    assert {24, 48} == {each["model.tiny_width"] for each in trials}
    assert all({"text": 0.1} == each["training.loss_weights"] for each in trials)
    json.dumps(trials)  # no numbers of NumPy's
