"""The commands on the pages are valid: jobs and sweeps pass a dry run, and names exist."""

import argparse
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import click
import pytest
from ray.dashboard.modules.job.cli import job_cli_group
from ray.scripts.scripts import cli

from mmtpp.cli.jobs import JOBS, run_named_job
from mmtpp.cli.main import TOOLS
from mmtpp.cli.sweep_job import run_sweep_job
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
# files that a reader writes, and a file of the repository that takes their place in the dry run
FILES_OF_READERS = {"my.toml": "jobs/configs/own_events.toml"}
SWEEPS_OF_READERS = {"FILE.toml": "tune/configs/delta_rank.toml"}


def _commands(text: str) -> list[list[str]]:
    """Words of each command in the shell blocks of a page."""
    commands = []
    for block in re.findall(r"```(?:ba)?sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|\|", line.split(" #")[0].split("<!--")[0]):
                try:
                    words = shlex.split(part)
                except ValueError:  # the split cut a quoted string
                    continue
                while words and re.match(r"\w+=", words[0]):  # an environment variable
                    del words[0]
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
    if arguments[end + 1 :]:
        _check_command(arguments[end + 1 :])


def _dry_run(name: str, arguments: list[str]) -> None:
    """Run a job or a sweep up to its checks of the settings."""
    files = SWEEPS_OF_READERS if name == "sweep" else FILES_OF_READERS
    arguments = [files.get(word, word) for word in arguments]
    arguments = [str(ROOT / word) if word.endswith(".toml") else word for word in arguments]
    messages = io.StringIO()
    status: object = None
    with contextlib.redirect_stderr(messages), contextlib.redirect_stdout(io.StringIO()):
        try:
            if name == "sweep":
                status = run_sweep_job("", [*arguments, "--dry-run"])
            else:
                status = run_named_job(name, [*arguments, "--dry-run"])
        except SystemExit as error:  # of argparse
            status = error.code
    assert status == 0, f"{name} {arguments}: {messages.getvalue()}"


def _check_tool(name: str, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(TOOLS[name][0]).add_arguments(parser)
    messages = io.StringIO()
    with contextlib.redirect_stderr(messages):
        try:
            parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"mmtpp {name} {arguments}: {messages.getvalue()}")


def _check_mmtpp(words: list[str]) -> None:
    name, arguments = words[0], words[1:]
    assert name in {*JOBS, "sweep", *TOOLS}, f"no such command of mmtpp: {words}"
    if name in TOOLS:
        _check_tool(name, arguments)
    else:
        _dry_run(name, arguments)


def _check_settings(words: list[str]) -> None:
    known = set(flat_settings(RunConfig()))
    for place, word in enumerate(words):
        if word == "--set":
            key = words[place + 1].split("=")[0]
            is_open = key.startswith(OPEN_KEYS)
            assert is_open or key in known or key.startswith("sweep."), f"no such setting: {key}"


def _check_command(words: list[str]) -> None:
    program = words[0]
    if program == "ray":
        _check_ray(words)
    elif program == "mmtpp":
        _check_mmtpp(words[1:])
    elif program == "make":
        assert set(words[1:]) <= TARGETS, words
    elif words[:3] == ["python", "-m", "mmtpp"]:
        _check_mmtpp(words[3:])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), f"no such module: {words}"
    elif program == "python":
        assert (ROOT / words[1]).is_file(), words
        _check_mmtpp([Path(words[1]).stem, *words[2:]])
    for word in words:
        if re.fullmatch(r"(jobs|tune|cluster)/[\w/]+\.(py|yaml|toml|json)", word):
            assert (ROOT / word).is_file(), words
        if word.startswith("file://") and "*" not in word:
            assert (ROOT / word.removeprefix("file://")).is_file(), words
    _check_settings(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_commands_are_valid(page: Path):
    for words in _commands(page.read_text()):
        _check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_sentences_exist(page: Path):
    for program, name in re.findall(r"`(make|mmtpp) ([a-z][a-z0-9-]*)[ `]", page.read_text()):
        known = TARGETS if program == "make" else {*JOBS, "sweep", *TOOLS}
        assert name in known, f"no such command: {program} {name}"


def test_commands_are_recognised_on_the_pages():
    programs = [words[0] for page in PAGES for words in _commands(page.read_text())]
    for program in ("make", "mmtpp", "python", "ray"):
        assert programs.count(program) >= 5


def test_both_names_of_shell_blocks_are_read():
    text = "```sh\nmake a && X=1 ray up f\n```\n```bash\nmmtpp b\\\n c  # why\n```\n```\nd\n```\n"
    assert _commands(text) == [["make", "a"], ["ray", "up", "f"], ["mmtpp", "b", "c"]]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ray job submit --working-dri .", "--working-dri"),
        ("ray jobs", "no such command"),
        ("ray job submit -- python jobs/prepare.py source.uri=x", "unrecognized arguments"),
        ("python jobs/absent.py", "absent"),
        ("python jobs/pretrain.py store.uri=x", "unrecognized arguments: store.uri=x"),
        ("mmtpp pretrain --set store.uri=x", "run.storage_uri: this job requires it"),
        ("mmtpp pretrain --config absent.toml", "cannot be read"),
        ("mmtpp sweep --config FILE.toml sweep.max_hours=1", "unrecognized arguments"),
        ("mmtpp inspect events.csv --kinds columns", "--kinds"),
        ("mmtpp inspect", "required: uri"),
        ("mmtpp doctor store.uri=x", "unrecognized arguments"),
        ("python -m benchmarks.absent", "no such module"),
        ("other --set store.url=x", "no such setting: store.url"),
    ],
)
def test_a_wrong_command_fails(command: str, message: str):
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(message)):
        _check_command(shlex.split(command))
