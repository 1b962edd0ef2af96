"""Summary at the end of a job: URIs, metrics, and commands that exist."""

import shlex

import pytest

from mmtpp.cli.summary import SHOWN_METRICS, as_summary, next_commands
from mmtpp.config.load import config_from_tree, parse_arguments

ARGV = ["--config", "jobs/configs/demo.toml", "--set", "model.path=OLD", "--set", "lora.rank=8"]


def test_a_finetuned_adapter_is_evaluated_with_its_base_next():
    config = config_from_tree({"model": {"path": "s3://b/base model"}, "lora": {"rank": 8}})
    commands = next_commands("finetune", {"adapter_uri": "s3://b/runs/x/adapter"}, config, ARGV)
    assert commands == [
        f"python jobs/{job}.py --config jobs/configs/demo.toml --set lora.rank=8 "
        "--set 'model.path=s3://b/base model' --set model.adapter=s3://b/runs/x/adapter"
        for job in ("evaluate", "predict")
    ]
    for command in commands:  # the jobs accept them
        config = parse_arguments("", shlex.split(command)[2:]).config
        assert config.model.path == "s3://b/base model"
        assert config.model.adapter == "s3://b/runs/x/adapter"


def test_the_next_training_gets_another_run_name():
    """Another training with the same run name would be refused."""
    argv = ["--config=jobs/configs/demo.toml", "--set=run.name=base", "--set=model.path=OLD"]
    config = config_from_tree({"run": {"name": "base"}, "lora": {"rank": 0}})
    finetune, evaluate = next_commands(
        "pretrain", {"model_uri": "s3://b/two  blanks"}, config, argv
    )
    model = "--set 'model.path=s3://b/two  blanks'"
    head = "--config jobs/configs/demo.toml"
    assert f"python jobs/finetune.py {head} --set run.name=base-finetune {model}" == finetune
    assert f"python jobs/evaluate.py {head} {model}" == evaluate


def test_a_fully_trained_model_replaces_its_base():
    config = config_from_tree({"model": {"path": "OLD"}, "lora": {"rank": 0}})
    evaluate = next_commands("pretrain", {"model_uri": "s3://b/new"}, config, ARGV)[1]
    config = parse_arguments("", shlex.split(evaluate)[2:]).config
    assert (config.model.path, config.model.adapter) == ("s3://b/new", "")


@pytest.mark.parametrize("promoted", ["models:/lines/2", ""])
def test_an_updated_adapter_is_evaluated_next_or_rolled_back(promoted: str):
    tree = {"update": {"model": "models:/lines@champion"}, "tracking": {"uri": "http://m"}}
    settings = {"model.path": "s3://b/base", "model.adapter": "s3://b/x/adapter-best-000010"}
    result = {"promoted": promoted, "model_settings": settings}
    *undo, evaluate = next_commands("update", result, config_from_tree(tree), ARGV)
    rollback = "mmtpp rollback models:/lines@champion --tracking-uri http://m"
    assert undo == ([rollback] if promoted else [])
    config = parse_arguments("", shlex.split(evaluate)[2:]).config
    assert config.model.path == settings["model.path"]
    assert config.model.adapter == settings["model.adapter"]


@pytest.mark.parametrize(
    "tree",
    [
        {"model": {"preset": "expert"}},
        {"template": {"style": "soft"}, "compression": {"strategy": "none"}},
    ],
)
def test_a_model_that_pretrain_alone_trains_is_not_finetuned_next(tree: dict):
    commands = next_commands("pretrain", {"model_uri": "s3://b/new"}, config_from_tree(tree), [])
    assert [command.split()[1] for command in commands] == ["jobs/evaluate.py", "jobs/predict.py"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.3, "12 s"), (192.0, "3 min 12 s"), (7300.0, "2 h 1 min")]
)
def test_the_summary_fits_a_screen(seconds: float, words: str):
    metrics = {f"other/{index}": 1.0 for index in range(40)} | {
        "time/mae_s": 2.25,
        "a/at_1-49": 0.0,
    }
    result = {
        "seconds": seconds,
        "run_name": "x",
        "events": 12345,
        "metrics": metrics,
        "report_uri": "s3://b/report.html",
    }
    lines = as_summary("evaluate", result, config_from_tree({}), ARGV).splitlines()
    assert f"evaluate finished after {words}" == lines[0]
    assert "  events                   12,345" in lines
    assert lines[4].split() == ["time/mae_s", "2.25", "s"]
    assert len(lines) < SHOWN_METRICS + 10
    assert not [line for line in lines if "/at_" in line]
    assert "open s3://b/report.html" in lines[-1]


def test_durations_have_readable_units():
    """222,700 s / 86,400 s = 2.5775 days."""
    metrics = {"time/mae_s": 222_700.4, "time/rmse_s": 0.00025, "time/nll_nats_per_event": 9.2}
    result = {"seconds": 1.0, "metrics": metrics}
    lines = as_summary("evaluate", result, config_from_tree({}), ARGV).splitlines()
    shown = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in lines[1:4]}
    assert shown == {
        "time/mae_s": "2.58 days (222700.4 s)",
        "time/rmse_s": "250 µs (0.00025 s)",
        "time/nll_nats_per_event": "9.2",
    }


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]):
    """The command to type next repeats the options of this one."""
    with pytest.raises(SystemExit):
        parse_arguments("", ["--conf=demo.toml"])
    assert "unrecognized arguments: --conf=demo.toml" in capsys.readouterr().err
