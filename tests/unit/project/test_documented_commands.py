"""The programs, options, files, targets and settings in documented commands exist."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
from ray.dashboard.modules.job.cli import job_cli_group
from ray.scripts.scripts import cli

from mmtpp.cli.jobs import JOBS
from mmtpp.cli.main import TOOLS
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig

ROOT = Path(__file__).parents[3]
PAGES = [
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OPEN_KEYS = ("store.machine_labels.", "training.machine_labels.")  # the user chooses the last part


def _commands(page: Path) -> list[list[str]]:
    """Words of each command in the page's shell blocks."""
    commands = []
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|\|", line.split(" #")[0].split("<!--")[0]):
                try:
                    words = shlex.split(part)
                except ValueError:  # the split cut a quoted string
                    continue
                commands += [words] if words else []
    return commands


def _check_ray(words: list[str]) -> None:
    command: click.Command = cli
    arguments = words[1:]
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        group = job_cli_group if name == "job" and command is cli else command.commands.get(name)
        assert group is not None, f"no such command of ray: {words}"
        command = group
    options = {option for parameter in command.params for option in parameter.opts}
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for word in arguments[:end]:
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"no such option of ray: {word} in {words}"


def _check_mmtpp(words: list[str]) -> None:
    """Check the name of a job or tool, and the options of a tool."""
    name, arguments = words[0], words[1:]
    assert name in {*JOBS, "sweep", *TOOLS}, f"no such command of mmtpp: {words}"
    if name in TOOLS:
        parser = argparse.ArgumentParser()
        importlib.import_module(TOOLS[name][0]).add_arguments(parser)
        for word in arguments:
            known = word.split("=")[0] in parser._option_string_actions
            assert known or not word.startswith("--"), f"no such option: {word} in {words}"


def _check_settings(words: list[str]) -> None:
    known = set(flat_settings(RunConfig()))
    for place, word in enumerate(words):
        if word == "--config":
            assert (ROOT / words[place + 1]).is_file() or words[place + 1] == "FILE.toml", words
        if word == "--set":
            key = words[place + 1].split("=")[0]
            is_open = key.startswith(OPEN_KEYS)
            assert is_open or key in known or key.startswith("sweep."), f"no such setting: {key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_commands_are_valid(page: Path):
    for words in _commands(page):
        program = words[0]
        if program == "ray":
            _check_ray(words)
        if words[:3] == ["python", "-m", "mmtpp"] and words[3:]:
            _check_mmtpp(words[3:])
        if program == "mmtpp":
            _check_mmtpp(words[1:])
        if program == "make":
            assert words[1] in TARGETS, words
        for word in words:
            if re.fullmatch(r"(jobs|tune|cluster)/[\w/]+\.(py|yaml|toml|json)", word):
                assert (ROOT / word).is_file(), words
            if word.startswith("file://") and "*" not in word:
                assert (ROOT / word.removeprefix("file://")).is_file(), words
        _check_settings(words)


def test_commands_are_recognised_on_the_pages():
    programs = [words[0] for page in PAGES for words in _commands(page)]
    for program in ("make", "mmtpp", "python", "ray"):
        assert programs.count(program) >= 5


def test_a_wrong_command_fails():
    with pytest.raises(AssertionError, match="--working-dri"):
        _check_ray(["ray", "job", "submit", "--working-dri", "."])
    with pytest.raises(AssertionError, match="no such command"):
        _check_ray(["ray", "jobs"])
    with pytest.raises(AssertionError, match="no such option: --kinds"):
        _check_mmtpp(["inspect", "events.csv", "--kinds", "columns"])
    with pytest.raises(AssertionError, match=r"no such setting: store\.url"):
        _check_settings(["--set", "store.url=x"])
