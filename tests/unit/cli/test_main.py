"""The ``mmtpp`` command: its help, its version and the sweep."""

import ast
import json
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest

from mmtpp.cli.jobs import JOBS, run_named_job
from mmtpp.cli.main import TOOLS, main
from mmtpp.config.load import load_config
from tests.unit.sweep.sweeps import HEAD


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {*JOBS, "sweep", *TOOLS} <= listed


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"mmtpp {version('mmtpp')}\n"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("pretrian", "did you mean pretrain?"),
        ("setings", "did you mean settings?"),
        ("blancmange", "choose from prepare, pretrain, "),
    ],
)
def test_an_unknown_command_suggests_a_known_one(
    capsys: pytest.CaptureFixture[str], name: str, suggestion: str
):
    with pytest.raises(SystemExit) as caught:
        main([name])
    assert caught.value.code == 2
    assert f"no such command: {name}; {suggestion}" in capsys.readouterr().err


def test_a_dry_run_of_a_sweep_prints_its_trials(tmp_path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "sweep.toml"
    file.write_text(HEAD + '[space]\n"lora.rank" = [2, 4]\n')
    arguments = ["--config", str(file), "--set", "store.uri=s", "--set", "run.storage_uri=r"]
    assert main(["sweep", *arguments, "--dry-run"]) == 0
    preview = json.loads(capsys.readouterr().out)
    assert preview["trials"] == [{"lora.rank": 2}, {"lora.rank": 4}]


def test_a_sweep_without_a_space_is_an_error(tmp_path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "sweep.toml"
    file.write_text(HEAD)
    assert main(["sweep", "--config", str(file)]) == 1
    assert "nothing to search" in capsys.readouterr().err


def test_the_sweep_names_itself_in_its_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert capsys.readouterr().out.startswith("usage: mmtpp sweep ")


def test_a_dry_run_checks_the_settings_of_the_job(capsys: pytest.CaptureFixture[str]):
    locations = ["--set", "source.uri=raw", "--set", "store.uri=store", "--dry-run"]
    assert main(["prepare", *locations]) == 0
    assert main(["prepare", *locations, "--set", "source.columns.split=fold"]) == 1
    assert "set split.by = given" in capsys.readouterr().err


def test_a_dry_run_prints_the_settings_once(capsys: pytest.CaptureFixture[str]):
    settings = ["--set", "store.uri=store", "--set", "run.storage_uri=runs"]
    assert main(["pretrain", *settings, "--dry-run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == load_config(None, settings[1::2]).model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate", "model.path: this job requires it"),
        ("evaluate --set evaluation.num_futures=2", "num_futures above 0 needs a horizon above 0"),
        ("export --set model.path=m", "model.adapter: this job requires it"),
        ("predict --set model.path=m", "there are no events to forecast from"),
        (
            "predict --set model.path=m --set source.uri=s --set source.kind=taxi",
            "needs source.taxi",
        ),
        ("predict --set model.path=m --set source.uri=/s --set store.uri=/s/t", "is inside source"),
    ],
)
def test_a_dry_run_refuses_incomplete_settings(
    capsys: pytest.CaptureFixture[str], words: str, message: str
):
    storage = ["--set", "run.storage_uri=runs", "--dry-run"]
    assert main([*shlex.split(words), *storage]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBS)
def test_the_example_of_a_job_can_be_pasted_into_a_shell(
    capsys: pytest.CaptureFixture[str], name: str
):
    text = ast.get_docstring(ast.parse(Path(f"jobs/{name}.py").read_text(encoding="utf-8")))
    assert text is not None
    with pytest.raises(SystemExit):
        run_named_job(name, ["--help"], example=text)
    printed = capsys.readouterr().out
    command = printed[printed.index(f"python jobs/{name}.py") :].partition("\n\n")[0]
    words = _shell_words(command)
    assert words == _shell_words(text.partition("\n\n")[2])
    assert words[:2] == ["python", f"jobs/{name}.py"]
    assert set(words[2::2]) <= {"--config", "--set"}
    assert all(word for word in words[3::2])


def _shell_words(command: str) -> list[str]:
    """Split a command as a shell does, which joins lines after a backslash."""
    return shlex.split(command.replace("\\\n", ""))
