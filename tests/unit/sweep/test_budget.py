"""The budget of a sweep, over all its processes."""

import copy
from types import SimpleNamespace

import pytest

from mmtpp.sweep.budget import Budget
from tests.unit.sweep.sweeps import INTERVAL_METRIC


@pytest.fixture
def clock(monkeypatch):
    """Seconds that ``time.monotonic`` returns, in a list that a test changes."""
    now = [1000.0]
    monkeypatch.setattr("mmtpp.sweep.budget.time.monotonic", lambda: now[0])
    return now


def test_the_budget_counts_the_hours_of_all_workers(sweep_of, clock):
    workers = '[space]\n"training.num_workers" = [2, 4]\n'
    sweep = sweep_of(workers, "sweep.max_gpu_hours=1.0")
    budget = Budget(sweep)
    two, four = (
        SimpleNamespace(trial_id=f"t_{count}", config={"training.num_workers": count})
        for count in (2, 4)
    )
    for trial in (two, four):
        budget.on_trial_start(0, [], trial)
    clock[0] += 400  # 800 s and 1,600 s of workers, before any report
    assert not budget.stop_all()
    assert budget.used_gpu_hours == pytest.approx(2400 / 3600)
    budget.on_trial_recover(0, [], two)
    clock[0] += 200  # 800 s more for the trial with four workers
    budget.on_trial_start(0, [], two)
    clock[0] += 50  # 100 s and 200 s more
    assert budget.used_gpu_hours == pytest.approx(3500 / 3600)
    state = budget.get_state()
    clock[0] += 50
    assert budget.stop_all()
    assert budget.has_cut_short("t_2")
    assert budget.has_cut_short("t_4")
    assert not budget("t_2", {"step": 1.0})
    assert budget("t_2", {"step": 1.0, "finished": 1.0})

    larger = Budget.build_for_process(sweep_of(workers, "sweep.max_gpu_hours=2.0"))
    assert copy.deepcopy(budget) is larger  # a copy by Ray Tune is replaced
    larger.set_state(state)
    assert larger.used_gpu_hours == pytest.approx(3500 / 3600)
    assert not larger.stop_all()


def test_a_trial_with_invalid_settings_is_counted(sweep_of, clock):
    """The trial fails by itself; an error here would end the sweep."""
    text = (
        '[space]\n"window.max_tokens" = [128, 256]\n'
        '[tied]\n"training.num_workers" = {to = "window.max_tokens", times = 0.0078125}\n'
    )
    budget = Budget(sweep_of(text, f"sweep.metric={INTERVAL_METRIC}"))
    trial = SimpleNamespace(trial_id="t_0", config={"window.max_tokens": 384})
    budget.on_trial_start(0, [], trial)
    clock[0] += 60
    assert budget.used_gpu_hours == pytest.approx(3 * 60 / 3600)
    assert budget.has_begun("t_0")
    assert not budget.has_begun("t_1")


def test_the_budget_of_hours_resumes_after_an_interruption(sweep_of, clock):
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n', "sweep.max_hours=1.0")
    first, second = Budget(sweep), Budget(sweep)
    clock[0] += 3000
    assert not first.stop_all()
    second.set_state(first.get_state())
    clock[0] += 500
    assert not second.stop_all()
    clock[0] += 100
    assert second.stop_all()
    assert not Budget(sweep_of('[space]\n"lora.rank" = [2, 4]\n')).stop_all()


def test_a_trial_interrupted_before_a_budget_ends_is_cut_short_by_it(sweep_of, clock):
    """The budget is that of another process, in which the trial never ran."""
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n', "sweep.max_hours=1.0")
    first, second = Budget(sweep), Budget(sweep)
    behind, running = (SimpleNamespace(trial_id=name, config={}) for name in ("behind", "running"))
    for trial in (behind, running):
        first.on_trial_start(0, [], trial)
    first.on_trial_complete(0, [], behind)  # stopped by its scheduler
    clock[0] += 3600
    second.set_state(first.get_state())
    assert not second.has_cut_short("running")
    assert second.stop_all()
    second.on_trial_complete(0, [], running)
    assert second.has_cut_short("running")
    assert not second.has_cut_short("behind")
