"""The ``mmtpp`` command: its help, its version and the sweep."""

import json
from importlib.metadata import version

import pytest

from mmtpp.cli.jobs import JOBS
from mmtpp.cli.main import TOOLS, main
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
