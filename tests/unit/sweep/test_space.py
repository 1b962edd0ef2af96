"""Search spaces: how a sweep file is read, and which sweeps are refused."""

import re
from pathlib import Path

import pytest

from mmtpp.core.errors import ConfigError
from mmtpp.core.training.training_metrics import VALIDATION_EVENT_NLL
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.search import param_space
from tests.unit.sweep.sweeps import INTERVAL_METRIC

ROOT = Path(__file__).parents[3]


def test_a_grid_has_every_combination_with_quoted_or_nested_keys(sweep_of):
    quoted = sweep_of('[space]\n"lora.rank" = [2, 4]\n"training.seed" = [0, 1]\n')
    nested = sweep_of("[space]\nlora.rank = [2, 4]\ntraining.seed = [0, 1]\n")
    expected = [{"lora.rank": rank, "training.seed": seed} for rank in (2, 4) for seed in (0, 1)]
    assert expected == quoted.grid() == nested.grid()
    assert quoted.name == nested.name
    assert param_space(quoted, is_grid=True)["lora.rank"]["grid_search"] == [2, 4]
    assert quoted.trial_config(expected[3]).lora.rank == 4
    assert quoted.preview() == {"trials": expected}
    drawn = sweep_of(
        "[space]\nlora.rank = {low = 2, high = 8}\n", "sweep.searcher=random", "sweep.num_trials=3"
    )
    space = {"lora.rank": {"low": 2, "high": 8, "log": False, "step": 0}}
    assert drawn.preview() == {"num_trials": 3, "space": space}


def test_the_name_depends_only_on_settings_that_shape_trials(sweep_of):
    space = '[space]\n"lora.rank" = [2, 4]\n'
    name = sweep_of(space).name
    assert sweep_of(space, "sweep.max_concurrent=1", "sweep.max_hours=2.0").name == name
    assert sweep_of(space, "training.num_steps=7").name != name
    assert sweep_of(space, "space.lora.rank=[2, 8]").name != name
    assert sweep_of(space, "evaluation.max_sequences=3").name != name
    assert sweep_of(space, "tasks.text=0.5").name != name
    assert sweep_of(space, 'tied.lora.alpha={to = "lora.rank", times = 2}').name != name


def test_a_tied_setting_follows_the_searched_one(sweep_of):
    sweep = sweep_of(
        "[space]\nlora.rank = [2, 8]\nwindow.max_tokens = [128, 512]\n"
        '[tied]\n"lora.alpha" = {to = "lora.rank", times = 4}\n'
        'training.samples_per_step = {to = "window.max_tokens", product = 1024}\n',
        f"sweep.metric={INTERVAL_METRIC}",
    )
    configs = [sweep.trial_config(values) for values in sweep.grid()]
    assert [config.lora.alpha for config in configs] == [8, 8, 32, 32]
    assert [config.training.samples_per_step for config in configs] == [8, 2, 8, 2]
    uneven = '[tied]\ntraining.samples_per_step = {to = "window.max_tokens", product = 1248}\n'
    with pytest.raises(ConfigError, match=r"training\.samples_per_step = 9\.75"):
        sweep_of("[space]\nwindow.max_tokens = [128]\n" + uneven, f"sweep.metric={INTERVAL_METRIC}")


def test_stage_one_may_search_the_part_of_older_events(sweep_of):
    """They are read only: every event is scored in full, whatever their part."""
    sweep = sweep_of(
        '[space]\n"compression.older_fraction" = [0.25, 0.5]\n',
        f"sweep.metric={INTERVAL_METRIC}",
        "compression.strategy=recent_full",
    )
    assert len(sweep.grid()) == 2


def test_stage_two_may_search_any_compression(sweep_of):
    sweep = sweep_of(
        '[space]\n"compression.strategy" = ["none", "temporal", "relative"]\n',
        'sweep.jobs=["finetune", "evaluate"]',
        "sweep.metric=evaluate/joint/nll_nats_per_event",
    )
    assert len(sweep.grid()) == 3


@pytest.mark.parametrize(
    ("text", "assignments", "messages"),
    [
        ('[space]\n"lora.rnk" = [2]\n', [], ["lora.rnk: no such key", "lora.rank"]),
        ('[space]\n"lora.rank" = [2, -1]\n', [], ["lora.rank = -1"]),
        ('[space]\n"lora.rank" = [2, 2]\n', [], ["a value is listed twice"]),
        ('[space]\n"lora.rank" = 2\n', [], ["space.lora.rank = 2: must be a list"]),
        ("", [], ["nothing to search"]),
        ('[space]\n"lora.rank" = {low = 1, high = 8}\n', [], ["grid tries lists only"]),
        ('[space]\n"lora.rank" = {low = 8, high = 1}\n', [], ["low must be below"]),
        ('[space]\n"lora.rank" = {low = 1, high = 8, lg = true}\n', [], ["rank.log?"]),
        ('[space]\n"lora.rank" = [2]\n', ["sweep.sercher=optuna"], ["mean sweep.searcher?"]),
        (
            '[space]\n"lora.rank" = [2]\n',
            ["sweep.searcher=optuna"],
            ["num_trials is required with"],
        ),
        ('[space]\n"lora.rank" = [2]\n', ["training.validation_sequences=0"], ["no trial would"]),
        (
            '[space]\n"compression.delta" = [0.0, 9.0]\n',
            [f"sweep.metric={INTERVAL_METRIC}"],
            ["targets_delta = 0.0 is below"],
        ),
        (
            '[space]\n"compression.delta" = [0.0, 9.0]\n',
            ["evaluation.targets_delta=9.0"],
            ["changes the tokens", INTERVAL_METRIC],
        ),
        ('[space]\n"window.max_tokens" = [128, 512]\n', [], ["max_tokens changes the tokens"]),
        (
            '[space]\n"template.style" = ["minimal", "paper"]\n',
            [f"sweep.metric={VALIDATION_EVENT_NLL}"],
            ["template.style changes the tokens", INTERVAL_METRIC],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            ['sweep.jobs=["finetune"]', f"sweep.metric={VALIDATION_EVENT_NLL}"],
            ["report no such metric"],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            [
                'sweep.jobs=["pretrain", "finetune"]',
                f"sweep.metric=finetune/{VALIDATION_EVENT_NLL}",
            ],
            ["report no such metric"],
        ),
        (
            '[space]\n"compression.strategy" = ["none", "temporal"]\n',
            [f"sweep.metric={INTERVAL_METRIC}"],
            ["compression.strategy changes which ones", "different events"],
        ),
        (
            '[space]\n"compression.delta" = [0.1, 0.2]\n',
            [f"sweep.metric={INTERVAL_METRIC}", "compression.strategy=relative"],
            ["compression.delta changes which ones", "compression.strategy = relative"],
        ),
        (
            '[space]\n"evaluation.targets_delta" = [0.0, 9.0]\n',
            [f"sweep.metric={INTERVAL_METRIC}"],
            ["one evaluation.targets_delta for all trials"],
        ),
        (
            '[space]\n"training.validation_sequences" = [8, 16]\n',
            [f"sweep.metric={INTERVAL_METRIC}"],
            ["validation_sequences: trials would be scored on different events"],
        ),
        (
            '[space]\n"template.time_bytes" = [2, 4]\n',
            [f"sweep.metric={INTERVAL_METRIC}"],
            ["template.time_bytes changes the tokens", "a density"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ["sweep.metric=validation/intrval_nll_nats_per_event"],
            ["no such metric", INTERVAL_METRIC],
        ),
        ('[space]\n"lora.rank" = [2]\n', ["sweep.metric=evaluate/time/mae_s"], ["do not evaluate"]),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['sweep.jobs=["finetune", "evaluate"]', "sweep.metric=evaluate/time/rmse"],
            ["no such metric", "evaluate/time/rmse_s"],
        ),
        ('[space]\n"lora.rank" = [2]\n', ["sweep.metric=dta/tokens_per_event"], ["data/"]),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['sweep.jobs=["finetune", "evaluate"]', "sweep.metric=evaluate/type_accuracy"],
            ["renamed", "sweep.metric = evaluate/likelihood/type_given_interval_accuracy"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['sweep.jobs=["finetune", "evaluate"]', "sweep.metric=evaluate/time/mae_s/at_1-50"],
            ["renamed", "sweep.metric = evaluate/time/mae_s/at_1-49"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['sweep.jobs=["finetune", "evaluate"]', "sweep.metric=evaluate/time/mae_s/at_1-48"],
            ["1-48 is no range of positions", "evaluate/time/mae_s/at_1-49"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            [
                'sweep.jobs=["pretrain", "evaluate"]',
                "sweep.metric=evaluate/likelihood/nll_nats_per_event/at_1-49",
            ],
            ["not reported by position", "sweep.metric = evaluate/likelihood/nll_nats_per_event"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            [
                'sweep.jobs=["pretrain", "evaluate"]',
                "sweep.metric=evaluate/likelihood/type_given_nll",
            ],
            ["no such metric", "evaluate/likelihood/type_given_interval_nll_nats_per_event"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            [
                'sweep.jobs=["finetune", "evaluate"]',
                "tasks.joint=0",
                "sweep.metric=evaluate/joint/nll_nats_per_event",
            ],
            ["not trained to answer joint", "tasks.joint = 0.0"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['sweep.jobs=["pretrain", "evaluate"]', "sweep.metric=evaluate/time/mae_s"],
            ["not trained to answer time"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            [
                'sweep.jobs=["finetune", "evaluate"]',
                "tasks.type=0",
                "tasks.joint=0",
                "evaluation.num_futures=2",
                "evaluation.horizon=9",
                "sweep.metric=evaluate/time/mae_s",
            ],
            ["trained to answer time, and type or joint", "evaluation.num_futures = 2"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['sweep.jobs=["finetune", "evaluate"]', "sweep.metric=evaluate/horizon/otd_s"],
            ["no trial would report a metric of futures", "evaluation.num_futures = 0"],
        ),
        (
            '[space]\n"lora.rank" = {low = 2, high = 9, step = 2}\n',
            ["sweep.searcher=random", "sweep.num_trials=4"],
            ["low and high must be multiples of step"],
        ),
        (
            '[space]\n"lora.rank" = {low = 2, high = 8, step = 0.5}\n',
            ["sweep.searcher=random", "sweep.num_trials=4"],
            ["step must be whole"],
        ),
        (
            '[space]\n"lora.rank" = {low = 2, high = 8, step = 2, log = true}\n',
            ["sweep.searcher=optuna", "sweep.num_trials=4"],
            ["lora.rank has log and step"],
        ),
        (  # both ends are valid widths
            '[space]\n"model.tiny_width" = {low = 48, high = 192}\n',
            ["sweep.searcher=random", "sweep.num_trials=4"],
            ["model.tiny_width = 49"],
        ),
        (
            '[space]\n"window.max_tokens" = {low = 128, high = 512}\n',
            [
                "sweep.searcher=random",
                "sweep.num_trials=4",
                f"sweep.metric={INTERVAL_METRIC}",
                'tied.training.samples_per_step={to = "window.max_tokens", product = 1024}',
            ],
            ["training.samples_per_step = 7.9"],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            ['sweep.scheduler={kind = "asha", every_steps = 10, grace_steps = 2000}'],
            ["sweep.scheduler.grace_steps = 2000", "ends before the first decision"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['tied.lora.alpha={to = "lora.dropout", times = 2}'],
            ["tied.lora.alpha: ties a setting that is not searched to one that is"],
        ),
        (
            '[space]\n"lora.rank" = [2]\n',
            ['tied.lora.alpha={to = "lora.rank", times = 2, product = 3}'],
            ["either times or product"],
        ),
        (
            '[space]\n"training.learning_rate" = [0.1, 0.2]\n',
            [
                "sweep.searcher=random",
                "sweep.num_trials=4",
                'sweep.scheduler={kind = "pbt"}',
                "sweep.max_concurrent=2",
            ],
            ["runs all members at once, but sweep.max_concurrent = 2"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ["sweep.searcher=random", "sweep.num_trials=4", 'sweep.scheduler={kind = "pbt"}'],
            ["space.lora.rank: scheduler.kind = pbt changes settings during a run"],
        ),
        (
            '[space]\n"expert.width" = [16, 32]\n',
            [
                "model.preset=expert",
                "sweep.metric=validation/joint_nll_nats_per_event",
                'sweep.scheduler={kind = "asha", every_steps = 10}',
            ],
            ["schedulers stop trials by training.num_steps, which an expert does not have"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            ["sweep.metric=validation/joint_nll_nats_per_event"],
            ["validation/joint_nll_nats_per_event", "report no such metric"],
        ),
        (
            '[space]\n"expert.width" = [16, 32]\n',
            ["model.preset=expert", "sweep.metric=validation/loss_per_token"],
            ["validation/loss_per_token", "validation/joint_type_nll_nats_per_event"],
        ),
        (
            '[space]\n"lora.rank" = [2, 4]\n',
            [
                "template.style=soft",
                "compression.strategy=none",
                'sweep.jobs=["pretrain", "finetune"]',
            ],
            ["trained by pretrain alone", "template.style = soft"],
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
            ["sweep.finetune sets lora.rank = 2", "of stage 1 with 4"],
        ),
    ],
)
def test_an_invalid_sweep_is_refused_before_anything_starts(sweep_of, text, assignments, messages):
    with pytest.raises(ConfigError) as caught:
        sweep_of(text, *assignments)
    for message in messages:
        assert message in str(caught.value)


def test_a_large_space_is_probed_without_all_of_its_combinations(sweep_of):
    rates = [round(0.01 * place, 2) for place in range(1, 51)]
    keys = (
        "training.learning_rate",
        "training.weight_decay",
        "lora.dropout",
        "training.final_lr_fraction",
        "training.max_grad_norm",
    )
    text = "[space]\n" + "\n".join(f'"{key}" = {rates}' for key in keys)
    sweep = sweep_of(text, "sweep.searcher=random", "sweep.num_trials=4")  # out of 50^5
    probes = sweep.probes()
    assert len(probes) < 1000
    assert all(rates == sorted({values[key] for values in probes}) for key in keys)
    assert sweep.num_trials == 4
    wrong = text.replace("0.5]", "-0.5]", 1)
    with pytest.raises(ConfigError, match=r"learning_rate = -0\.5"):
        sweep_of(wrong, "sweep.searcher=random", "sweep.num_trials=4")


def test_the_example_in_the_readme_is_a_valid_sweep(tmp_path: Path):
    page = (ROOT / "tune" / "README.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "example.toml").write_text(example)
    sweep = load_sweep(tmp_path / "example.toml", ["store.uri=s", "run.storage_uri=r"])
    assert sweep.settings.num_trials == 12
