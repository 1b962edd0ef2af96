"""Report of a sweep: tables, figures, the best trial, causes of failures."""

import math
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import ActorDiedError, RayTaskError, RuntimeEnvSetupError
from ray.train import ControllerError, WorkerGroupError

from mmtpp.config.load import load_config
from mmtpp.core.errors import NonFiniteLossError
from mmtpp.sweep.best_config import best_files
from mmtpp.sweep.failure_causes import failure_cause, shared_cause
from mmtpp.sweep.ranking import (
    average_over_seeds,
    best_candidate,
    list_candidates,
    pareto_front,
    rank_trials,
)
from mmtpp.sweep.sweep_figures import draw_figures
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.sweep.trial_table import as_csv, trials_table
from tests.unit.sweep.sweeps import METRIC


def _rows(*entries) -> list[TrialRow]:
    return [
        TrialRow(
            {"lora.rank": rank, "training.seed": seed},
            status,
            trial_id=f"t_{index}",
            metrics={**({} if loss is None else {METRIC: loss}), "data/tokens_per_event": cost},
            step=9,
            error="" if status != "failed" else "no memory",
        )
        for index, (rank, seed, status, loss, cost) in enumerate(entries)
    ]


def test_trials_are_ranked_averaged_over_seeds_and_shown(sweep_of):
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n"training.seed" = [0, 1]\n')
    rows = _rows(
        (2, 0, "finished", 3.0, 5.0),
        (2, 1, "finished", 5.0, 4.0),
        (4, 0, "stopped", 1.0, 1.0),
        (4, 1, "failed", None, 0.0),
    )
    order = rank_trials(reversed(rows), METRIC, "min")
    assert [row.metrics.get(METRIC) for row in order] == [3.0, 5.0, 1.0, None]
    assert [row.metrics[METRIC] for row in rank_trials(rows, METRIC, "max")[:2]] == [5.0, 3.0]
    (mean,) = average_over_seeds(rows, sweep)
    assert (mean.settings, mean.num_seeds, mean.means[METRIC]) == ({"lora.rank": 2}, 2, 4.0)
    assert mean.deviations[METRIC] == pytest.approx(math.sqrt(2))
    text = trials_table(order, sweep)
    assert "lora.rank = 4, training.seed = 1: no memory" in text
    assert "| 2 | 2 | 4.0000 | 1.4142 |" in text
    assert len(as_csv(rows).splitlines()) == 5


def test_the_best_is_chosen_by_means_over_seeds_and_has_the_metric(sweep_of):
    seeds = sweep_of('[space]\n"lora.rank" = [2, 4]\n"training.seed" = [0, 1]\n')
    rows = _rows(
        (2, 0, "finished", 1.0, 5.0),  # a lucky seed: the mean is 3.0
        (2, 1, "finished", 5.0, 5.0),
        (4, 0, "finished", 2.5, 5.0),
        (4, 1, "finished", 2.0, 5.0),
    )
    best = best_candidate(rows, seeds)
    assert best is not None
    assert best.settings == {"lora.rank": 4, "training.seed": 1}
    assert best.metrics[METRIC] == 2.25  # the mean, not the loss of its better seed
    ranks = sweep_of('[space]\n"lora.rank" = [2, 4]\n')
    best_trial = best_candidate(rows, ranks)
    assert best_trial is not None
    assert best_trial.metrics[METRIC] == 1.0
    front = pareto_front(
        list_candidates(rows, seeds), [METRIC, "data/tokens_per_event"], ["min", "min"]
    )
    assert [(mean.settings["lora.rank"], mean.metrics[METRIC]) for mean in front] == [(4, 2.25)]
    without = [replace(row, metrics={}) for row in rows]
    assert best_candidate(without, ranks) is None
    assert best_candidate(without, seeds) is None


def test_the_best_files_load_as_the_best_configuration(sweep_of, tmp_path):
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
    assert (first.lora.rank, first.lora.alpha, first.tracking.experiment) == (
        4,
        16,
        "events \U0001f600",
    )
    assert first.training.machine_labels == {"ray.io/accelerator-type": "A100"}
    assert 7 == second.training.num_steps != first.training.num_steps
    assert files["best.toml"].startswith(b"# python jobs/pretrain.py --config best.toml")
    assert files["best-finetune.toml"].startswith(
        b"# python jobs/finetune.py --config best-finetune.toml --set model.adapter=M"
    )
    alone = sweep_of(
        '[space]\n"lora.rank" = [2]\n[model]\npath = "s3://b/base"\n', 'sweep.jobs=["finetune"]'
    )
    (text,) = best_files(alone, {"lora.rank": 2}).values()
    assert text.startswith(b"# python jobs/finetune.py --config best.toml\n")
    assert b"s3://b/base" in text


def test_figures_accept_settings_that_are_not_numbers(sweep_of):
    sweep = sweep_of('[space]\n"training.loss_weights" = [{text = 0.1}, {text = 0.2}]\n')
    rows = _rows((1, 0, "finished", 1.0, 9.0), (1, 0, "finished", 2.0, 8.0))
    rows = [
        replace(row, settings={"training.loss_weights": {"text": weight}})
        for row, weight in zip(rows, (0.1, 0.2), strict=True)
    ]
    assert set(draw_figures(rows, sweep)) == {"by_training_loss_weights.png", "pareto.png"}


def test_figures_have_stopped_trials_and_average_finished_ones(sweep_of, monkeypatch):
    """ASHA may stop every trial with one value of a setting."""
    sweep = sweep_of('[space]\n"lora.rank" = [2, 4]\n')
    rows = _rows(
        (2, 0, "finished", 1.0, 9.0),
        (2, 1, "finished", 3.0, 9.5),
        (4, 0, "stopped", 7.0, 8.0),
        (4, 1, "failed", None, 0.0),
    )
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    assert set(draw_figures(rows, sweep)) == {"by_lora_rank.png", "pareto.png"}
    panel = drawn[0].axes[0]
    assert panel.get_title() == METRIC
    finished, stopped, mean = (line.get_xydata().tolist() for line in panel.lines)  # pyright: ignore[reportAttributeAccessIssue]
    assert (finished, stopped, mean) == ([[0, 1], [0, 3]], [[1, 7]], [[0, 2]])
    labels = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in drawn[0].axes]
    assert [["2", "4"]] * len(labels) == labels


def test_the_pareto_front_has_all_trials_that_none_dominates(sweep_of):
    rows = _rows(
        (1, 0, "finished", 1.0, 9.0),
        (2, 0, "finished", 2.0, 3.0),
        (3, 0, "finished", 2.5, 3.0),
        (4, 0, "finished", 3.0, 2.0),
        (5, 0, "stopped", 0.0, 0.0),
    )
    sweep = sweep_of('[space]\n"lora.rank" = [1, 2, 3, 4, 5]\n')
    candidates = list_candidates(rows, sweep)
    front = pareto_front(candidates, [METRIC, "data/tokens_per_event"], ["min", "min"])
    assert [trial.settings["lora.rank"] for trial in front] == [1, 2, 4]
    figures = draw_figures(rows, sweep)
    assert set(figures) == {"by_lora_rank.png", "pareto.png"}
    assert all(content.startswith(b"\x89PNG") for content in figures.values())
    assert (
        draw_figures(_rows((1, 0, "failed", None, 1.0)), sweep_of('[space]\n"lora.rank" = [1]\n'))
        == {}
    )


def test_the_cause_of_a_failure_is_one_line():
    diverged = NonFiniteLossError("the loss is not finite", where="step 1", cause="diverged")
    assert failure_cause(diverged) == "NonFiniteLossError: the loss is not finite (step 1)"
    memory = MemoryError("tried to allocate 9 GiB\nand more")
    assert (
        failure_cause(RayTaskError("f", "trace", memory)) == "MemoryError: tried to allocate 9 GiB"
    )
    worker_error = WorkerGroupError("two failed", {1: memory, 0: diverged})
    assert failure_cause(diverged) == failure_cause(worker_error)


TRACEBACK = """Traceback (most recent call last):
  File "function_manager.py", line 657, in temporary_actor_method
    raise RuntimeError(
RuntimeError: The actor with name ImplicitFunc failed to import on the worker. This may be because:

Traceback (most recent call last):
  File "function_manager.py", line 696, in _load_actor_class_from_gcs
    actor_class = pickle.loads(pickled_class)
ModuleNotFoundError: No module named 'tune'

An unexpected internal error occurred while the worker was executing a task."""


def test_the_cause_of_a_dead_process_comes_before_its_death():
    """Ray 2.60 reports a process that cannot import its trial in two ways."""
    context = ActorDiedErrorContext(
        error_message=f"The actor is dead because its worker process has died. {TRACEBACK}",
        class_name="ImplicitFunc",
        actor_id=bytes(16),
    )
    expected = "ModuleNotFoundError: No module named 'tune' (ActorDiedError)"
    assert failure_cause(ActorDiedError(context)) == expected
    missing = ModuleNotFoundError("No module named 'tune'")
    task = RayTaskError("ImplicitFunc.__init__", TRACEBACK, missing, actor_id="00")
    assert failure_cause(ActorDiedError(task)) == expected
    assert failure_cause(ControllerError(task)) == "ModuleNotFoundError: No module named 'tune'"


def test_a_killed_process_is_described_by_its_death():
    death = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    context = ActorDiedErrorContext(error_message=f"{death}\nmore", actor_id=bytes(16))
    assert failure_cause(ActorDiedError(context)) == f"ActorDiedError: {death}"
    assert len(failure_cause(ValueError("x" * 5000))) < 400


def test_an_error_that_cannot_be_pickled_is_described_by_its_text():
    """Ray Tune writes such a text for attempts whose processes could not be set up."""
    attempt = (
        "Failure # {} (occurred at 2026-11-28_07-46-41)\nFailed to set up runtime environment.\n"
    )
    raised = (
        'Traceback (most recent call last):\n  File "x.py", line 1\nTypeError:  {} is no path\n'
    )
    text = attempt.format(1) + raised.format("a") + attempt.format(2) + raised.format("b")
    assert failure_cause(text) == "TypeError:  b is no path"
    assert failure_cause(attempt.format(1)) == "Failed to set up runtime environment."
    assert failure_cause("") == "unknown"
    expected = "TypeError:  a is no path (RuntimeEnvSetupError)"
    assert failure_cause(RuntimeEnvSetupError(raised.format("a"))) == expected


def test_the_same_error_in_all_trials_is_not_blamed_on_the_search():
    errors = ["A: b", "A: b"]
    assert "none of the searched settings" in shared_cause(errors)
    assert "2 different errors" in shared_cause([*errors, "C: d"])
    assert "searched" not in shared_cause(errors[:1])
