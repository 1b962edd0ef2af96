"""Search spaces, and what a sweep makes of finished trials."""

import copy
import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError

from mmtpp.config.load import load_config
from mmtpp.core.errors import ConfigError, NonFiniteLossError
from mmtpp.data.machines import Need
from tune.budget import Budget
from tune.figures import figures
from tune.report import as_csv, best_files, best_of, over_seeds, pareto, ranked, trials_table
from tune.search import concurrency, param_space, scheduler, searcher
from tune.settings import OF_WHOLE_EVENTS
from tune.space import load_sweep
from tune.trial import one_line

ROOT = Path(__file__).parents[2]
METRIC = "validation/loss_per_token"
OF_EVENTS = "validation/interval_nll_nats_per_event"
HEAD = f"""
[sweep]
name = "s"
metric = "{METRIC}"
mode = "min"
"""


@pytest.fixture
def sweep_of(tmp_path):
    """Loads a sweep from text after ``HEAD``."""
    names = itertools.count()

    def load(text: str, *assignments: str, head: str = HEAD):
        path = tmp_path / f"{next(names)}.toml"
        path.write_text(head + text)
        return load_sweep(path, assignments)

    return load


def test_a_grid_is_every_combination_however_its_keys_are_written(sweep_of):
    quoted = sweep_of('[space]\n"lora.rank" = [2, 4]\n"training.seed" = [0, 1]\n')
    nested = sweep_of("[space]\nlora.rank = [2, 4]\ntraining.seed = [0, 1]\n")
    expected = [{"lora.rank": rank, "training.seed": seed} for rank in (2, 4) for seed in (0, 1)]
    assert expected == quoted.grid() == nested.grid()
    assert quoted.name == nested.name
    assert [2, 4] == param_space(quoted, is_grid=True)["lora.rank"]["grid_search"]
    assert 4 == quoted.trial_config(expected[3]).lora.rank
    assert {"trials": expected} == quoted.plan()
    drawn = sweep_of("[space]\nlora.rank = {low = 2, high = 8}\n", "sweep.searcher=random",
                     "sweep.num_trials=3")  # fmt: skip
    space = {"lora.rank": {"low": 2, "high": 8, "log": False, "step": 0}}
    assert {"num_trials": 3, "space": space} == drawn.plan()


def test_the_name_follows_from_what_shapes_trials_alone(sweep_of):
    space = '[space]\n"lora.rank" = [2, 4]\n'
    name = sweep_of(space).name
    assert name == sweep_of(space, "sweep.max_concurrent=1", "sweep.max_hours=2.0").name
    assert name != sweep_of(space, "training.num_steps=7").name
    assert name != sweep_of(space, "space.lora.rank=[2, 8]").name
    assert name != sweep_of(space, "evaluation.max_sequences=3").name
    assert name != sweep_of(space, "tasks.text=0.5").name
    assert name != sweep_of(space, 'tied.lora.alpha={to = "lora.rank", times = 2}').name


def test_a_tied_setting_follows_the_searched_one(sweep_of):
    sweep = sweep_of(
        "[space]\nlora.rank = [2, 8]\nwindow.max_tokens = [128, 512]\n"
        '[tied]\n"lora.alpha" = {to = "lora.rank", times = 4}\n'
        'training.samples_per_step = {to = "window.max_tokens", product = 1024}\n',
        f"sweep.metric={OF_EVENTS}",
    )
    of = [sweep.trial_config(values) for values in sweep.grid()]
    assert [8, 8, 32, 32] == [each.lora.alpha for each in of]
    assert [8, 2, 8, 2] == [each.training.samples_per_step for each in of]
    uneven = '[tied]\ntraining.samples_per_step = {to = "window.max_tokens", product = 1248}\n'
    with pytest.raises(ConfigError, match=r"training\.samples_per_step = 9\.75"):
        sweep_of("[space]\nwindow.max_tokens = [128]\n" + uneven, f"sweep.metric={OF_EVENTS}")


def test_stage_two_may_search_any_compression(sweep_of):
    sweep = sweep_of(
        '[space]\n"compression.strategy" = ["none", "temporal", "relative"]\n',
        'sweep.jobs=["finetune", "evaluate"]',
        "sweep.metric=evaluate/joint/nll_nats_per_event",
    )
    assert 3 == len(sweep.grid())


@pytest.mark.parametrize(
    ("text", "assignments", "told"),
    [
        ('[space]\n"lora.rnk" = [2]\n', [], ["lora.rnk: no such key", "lora.rank"]),
        ('[space]\n"lora.rank" = [2, -1]\n', [], ["lora.rank = -1"]),
        ('[space]\n"lora.rank" = [2, 2]\n', [], ["a value comes twice"]),
        ('[space]\n"lora.rank" = 2\n', [], ["space.lora.rank = 2: a list"]),
        ("", [], ["nothing to search"]),
        ('[space]\n"lora.rank" = {low = 1, high = 8}\n', [], ["grid tries lists only"]),
        ('[space]\n"lora.rank" = {low = 8, high = 1}\n', [], ["low must be below"]),
        ('[space]\n"lora.rank" = {low = 1, high = 8, lg = true}\n', [], ["rank.log?"]),
        ('[space]\n"lora.rank" = [2]\n', ["sweep.sercher=optuna"], ["mean sweep.searcher?"]),
        ('[space]\n"lora.rank" = [2]\n', ["sweep.searcher=optuna"], ["num_trials goes with"]),
        ('[space]\n"lora.rank" = [2]\n', ["training.validation_sequences=0"], ["no trial would"]),
        (
            '[space]\n"compression.delta" = [0.0, 9.0]\n',
            [f"sweep.metric={OF_EVENTS}"],
            ["targets_delta = 0.0 is below"],
        ),
        (
            '[space]\n"compression.delta" = [0.0, 9.0]\n',
            ["evaluation.targets_delta=9.0"],
            ["changes what the tokens are", OF_EVENTS],
        ),
        ('[space]\n"window.max_tokens" = [128, 512]\n', [], ["max_tokens changes what the tokens"]),
        (
            '[space]\n"template.style" = ["minimal", "paper"]\n',
            [f"sweep.metric={OF_WHOLE_EVENTS}"],
            ["template.style changes what the tokens are", OF_EVENTS],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            ["sweep.jobs=[\"finetune\"]", f"sweep.metric={OF_WHOLE_EVENTS}"],
            ["no such metric"],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            ['sweep.jobs=["pretrain", "finetune"]', f"sweep.metric=finetune/{OF_WHOLE_EVENTS}"],
            ["no such metric"],
        ),
        (
            '[space]\n"compression.strategy" = ["none", "temporal"]\n',
            [f"sweep.metric={OF_EVENTS}"],
            ["compression.strategy changes which ones", "different events"],
        ),
        (
            '[space]\n"compression.delta" = [0.1, 0.2]\n',
            [f"sweep.metric={OF_EVENTS}", "compression.strategy=relative"],
            ["compression.delta changes which ones", "compression.strategy = relative"],
        ),
        (
            '[space]\n"evaluation.targets_delta" = [0.0, 9.0]\n',
            [f"sweep.metric={OF_EVENTS}"],
            ["one evaluation.targets_delta for all trials"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ["sweep.metric=validation/intrval_nll_nats_per_event"],
            ["no such metric", OF_EVENTS],
        ),
        ('[space]\n"lora.rank" = [2]\n', ["sweep.metric=evaluate/time/mae_s"], ["do not evaluate"]),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['tied.lora.alpha={to = "lora.dropout", times = 2}'],
            ["tied.lora.alpha: ties a setting that is not searched to one that is"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['tied.lora.alpha={to = "lora.rank", times = 2, product = 3}'],
            ["times or product, one of them"],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            ["sweep.searcher=random", "sweep.num_trials=4", 'sweep.scheduler={kind = "pbt"}',
             "sweep.max_concurrent=2"],
            ["members of a population are trained at the same time"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ["sweep.searcher=random", "sweep.num_trials=4", 'sweep.scheduler={kind = "pbt"}'],
            ["space.lora.rank: scheduler.kind = pbt changes settings of a run that goes on"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ['sweep.scheduler={kind = "asha", every_steps = 1000}'],
            ["ends before the first decision"],
        ),
        (
            '[space]\n"training.max_flops" = [1e9, 1e10]\n',
            ['sweep.scheduler={kind = "asha", every_steps = 10}'],
            ["trials have different numbers of steps"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ['sweep.jobs=["finetune", "pretrain"]'],
            ["in the order pretrain, finetune, evaluate"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ['sweep.jobs=["pretrain", "finetune"]', 'sweep.finetune={"training.stps" = 3}'],
            ["training.stps: no such key"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ['sweep.jobs=["pretrain", "finetune"]', 'sweep.finetune={"lora.rank" = 2}'],
            ["of lora.rank = 4", "asks for 2"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_starts(sweep_of, text, assignments, told):
    with pytest.raises(ConfigError) as caught:
        sweep_of(text, *assignments)
    for each in told:
        assert each in str(caught.value)


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


@pytest.fixture
def clock(monkeypatch):
    """Seconds of ``time.monotonic``, at will."""
    now = [1000.0]
    monkeypatch.setattr("tune.budget.time.monotonic", lambda: now[0])
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
    clock[0] += 400  # 800 s and 1,600 s of workers, of which nobody reported anything
    assert not budget.stop_all()
    assert budget.used_gpu_hours == pytest.approx(2400 / 3600)
    budget.on_trial_recover(0, [], two)
    clock[0] += 200  # 800 s more of the other
    budget.on_trial_start(0, [], two)
    clock[0] += 50  # 100 s and 200 s
    assert budget.used_gpu_hours == pytest.approx(3500 / 3600)
    kept = budget.get_state()
    clock[0] += 50
    assert budget.stop_all()
    assert budget.has_cut_short("t_2")
    assert budget.has_cut_short("t_4")
    assert not budget("t_2", {"step": 1.0})
    assert budget("t_2", {"step": 1.0, "finished": 1.0})

    larger = Budget.of_this_process(sweep_of(workers, "sweep.max_gpu_hours=2.0"))
    assert copy.deepcopy(budget) is larger  # Tune's copy of the first one
    larger.set_state(kept)
    assert larger.used_gpu_hours == pytest.approx(3500 / 3600)
    assert not larger.stop_all()


def test_the_budget_of_hours_goes_on_after_an_interruption(sweep_of, clock):
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
    """By the budget of another process, which never saw it run."""
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n', "sweep.max_hours=1.0")
    first, second = Budget(sweep), Budget(sweep)
    behind, running = (SimpleNamespace(trial_id=name, config={}) for name in ("behind", "running"))
    for trial in (behind, running):
        first.on_trial_start(0, [], trial)
    first.on_trial_complete(0, [], behind)  # by its scheduler
    clock[0] += 3600
    second.set_state(first.get_state())
    assert not second.has_cut_short("running")
    assert second.stop_all()
    second.on_trial_complete(0, [], running)
    assert second.has_cut_short("running")
    assert not second.has_cut_short("behind")


def _rows(*entries):
    return [
        {"lora.rank": rank, "training.seed": seed, "status": status, "step": 9, METRIC: loss,
         "data/tokens_per_event": cost, "error": "" if status != "failed" else "no memory"}
        for rank, seed, status, loss, cost in entries
    ]  # fmt: skip


def test_trials_are_ranked_averaged_over_seeds_and_shown(sweep_of):
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n"training.seed" = [0, 1]\n')
    rows = _rows(
        (2, 0, "finished", 3.0, 5.0),
        (2, 1, "finished", 5.0, 4.0),
        (4, 0, "stopped", 1.0, 1.0),
        (4, 1, "failed", None, 0.0),
    )
    order = ranked(reversed(rows), METRIC, "min")
    assert [3.0, 5.0, 1.0, None] == [row[METRIC] for row in order]
    assert [5.0, 3.0] == [row[METRIC] for row in ranked(rows, METRIC, "max")[:2]]
    (mean,) = over_seeds(rows, sweep)
    assert (2, 2, 4.0) == (mean["lora.rank"], mean["seeds"], mean[METRIC])
    assert math.sqrt(2) == pytest.approx(mean[f"{METRIC} ±"])
    text = trials_table(order, sweep)
    assert "lora.rank = 4, training.seed = 1: no memory" in text
    assert "| 2 | 2 | 4.0000 | 1.4142 |" in text
    assert 5 == len(as_csv(rows).splitlines())


def test_the_best_is_that_of_all_seeds_and_never_one_without_the_metric(sweep_of):
    seeds = sweep_of('[space]\n"lora.rank" = [2, 4]\n"training.seed" = [0, 1]\n')
    rows = _rows(
        (2, 0, "finished", 1.0, 5.0),  # lucky: 3.0 in the mean
        (2, 1, "finished", 5.0, 5.0),
        (4, 0, "finished", 2.5, 5.0),
        (4, 1, "finished", 2.0, 5.0),
    )
    best = best_of(rows, seeds)
    assert best is not None
    assert (4, 1) == (best["lora.rank"], best["training.seed"])
    ranks = sweep_of('[space]\n"lora.rank" = [2, 4]\n')
    assert 1.0 == (best_of(rows, ranks) or {})[METRIC]
    without = [{key: value for key, value in row.items() if key != METRIC} for row in rows]
    assert best_of(without, ranks) is None
    assert best_of(without, seeds) is None


def test_the_best_files_are_read_as_what_was_best(sweep_of, tmp_path):
    sweep = sweep_of(
        '[space]\n"lora.rank" = [2, 4]\n[tied]\n"lora.alpha" = {to = "lora.rank", times = 4}\n'
        '[training.machine_labels]\n"ray.io/accelerator-type" = "A100"\n',
        'sweep.jobs=["pretrain", "finetune"]',
        'sweep.finetune={"training.num_steps" = 7}',
        "sweep.scheduler={every_steps = 3}",
        'tracking.experiment="events \U0001f600"',
    )
    files = best_files(sweep, {"lora.rank": 4})
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    first, second = (load_config(tmp_path / name) for name in ("best.toml", "best-finetune.toml"))
    assert (4, 16, "events \U0001f600") == (
        first.lora.rank, first.lora.alpha, first.tracking.experiment
    )  # fmt: skip
    assert {"ray.io/accelerator-type": "A100"} == first.training.machine_labels
    assert 7 == second.training.num_steps != first.training.num_steps
    assert files["best.toml"].startswith(b"# python jobs/pretrain.py --config best.toml")
    assert files["best-finetune.toml"].startswith(b"# python jobs/finetune.py")


def test_figures_take_settings_that_are_no_numbers(sweep_of):
    sweep = sweep_of('[space]\n"training.loss_weights" = [{text = 0.1}, {text = 0.2}]\n')
    rows = _rows((1, 0, "finished", 1.0, 9.0), (1, 0, "finished", 2.0, 8.0))
    for row, weight in zip(rows, (0.1, 0.2), strict=True):
        row["training.loss_weights"] = {"text": weight}
    assert {"by_training_loss_weights.png", "pareto.png"} == set(figures(rows, sweep))


def test_figures_show_what_was_stopped_and_average_what_finished(sweep_of, monkeypatch):
    """ASHA may stop every trial of a Delta."""
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n')
    rows = _rows(
        (2, 0, "finished", 1.0, 9.0),
        (2, 1, "finished", 3.0, 9.5),
        (4, 0, "stopped", 7.0, 8.0),
        (4, 1, "failed", None, 0.0),
    )
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    assert {"by_lora_rank.png", "pareto.png"} == set(figures(rows, sweep))
    panel = drawn[0].axes[0]
    assert METRIC == panel.get_title()
    finished, stopped, mean = (line.get_xydata().tolist() for line in panel.lines)
    assert ([[0, 1], [0, 3]], [[1, 7]], [[0, 2]]) == (finished, stopped, mean)
    labels = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in drawn[0].axes]
    assert [["2", "4"]] * len(labels) == labels


def test_a_population_stays_in_its_ranges(sweep_of):
    rates = '[space]\n"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
    pbt = scheduler(sweep_of(rates, "sweep.searcher=random", "sweep.num_trials=4",
                             'sweep.scheduler={kind = "pbt", every_steps = 7}'))  # fmt: skip
    assert {"training.learning_rate": 1e-2} == pbt._custom_explore_fn(
        {"training.learning_rate": 1.2e-2}
    )


def test_the_front_is_what_nothing_beats(sweep_of):
    rows = _rows(
        (1, 0, "finished", 1.0, 9.0),
        (2, 0, "finished", 2.0, 3.0),
        (3, 0, "finished", 2.5, 3.0),
        (4, 0, "finished", 3.0, 2.0),
        (5, 0, "stopped", 0.0, 0.0),
    )
    front = pareto(rows, [METRIC, "data/tokens_per_event"], ["min", "min"])
    assert [1, 2, 4] == [row["lora.rank"] for row in front]
    made = figures(rows, sweep_of('[space]\n"lora.rank" = [1, 2, 3, 4, 5]\n'))
    assert {"by_lora_rank.png", "pareto.png"} == set(made)
    assert all(each.startswith(b"\x89PNG") for each in made.values())
    assert {} == figures(
        _rows((1, 0, "failed", None, 1.0)), sweep_of('[space]\n"lora.rank" = [1]\n')
    )


def test_why_a_trial_failed_is_one_line():
    diverged = NonFiniteLossError("the loss is not finite", where="step 1", cause="diverged")
    assert "NonFiniteLossError: the loss is not finite (step 1)" == one_line(diverged)
    memory = MemoryError("tried to allocate 9 GiB\nand more")
    assert "MemoryError: tried to allocate 9 GiB" == one_line(RayTaskError("f", "trace", memory))
    of_workers = WorkerGroupError("two failed", {1: memory, 0: diverged})
    assert one_line(diverged) == one_line(of_workers)


def test_the_example_of_the_readme_is_a_sweep(tmp_path: Path):
    page = (ROOT / "tune" / "README.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "example.toml").write_text(example)
    sweep = load_sweep(tmp_path / "example.toml", ["store.uri=s", "run.storage_uri=r"])
    assert 12 == sweep.settings.num_trials
