"""The ``mmtpp`` command: the jobs, the sweep and the tools."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from mmtpp.cli.extras import require_extras
from mmtpp.cli.jobs import JOBS, run_named_job
from mmtpp.core.errors import MmtppError
from mmtpp.runtime.logs import start_logging

SWEEP_DESCRIPTION = "Search for the best settings: many trainings with Ray Tune over Ray Train."
# modules and descriptions of the tools; imported on use, because some need matplotlib or torch
TOOLS = {
    "convert": ("mmtpp.cli.convert_command", "write an event store for EasyTPP or HF datasets"),
    "doctor": ("mmtpp.cli.doctor_command", "check this installation and print how to fix it"),
    "import": ("mmtpp.cli.import_command", "write the model of a GGUF file as a folder"),
    "inspect": ("mmtpp.cli.inspect_command", "show the content of a data set and its compression"),
    "plan": ("mmtpp.cli.plan_command", "estimate GPU memory, settings that fit, speed and cost"),
    "rollback": ("mmtpp.cli.rollback_command", "undo the promotion of an updated model"),
    "scaling": ("mmtpp.cli.scaling_command", "fit a scaling law to the trials of a sweep"),
    "score": (
        "mmtpp.cli.score_command",
        "score events from standard input, forecast the next ones",
    ),
    "settings": ("mmtpp.cli.settings_command", "list all settings of the jobs with their help"),
}

# optional packages that a tool imports, keys of ``extras.EXTRAS``
TOOL_EXTRAS = {"import": ("gguf",), "plan": ("train", "track"), "rollback": ("track",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job, a sweep or a tool.

    Args:
        argv: Arguments; ``sys.argv`` when None.

    Returns:
        Exit status: 0, 1 after an error that the user can fix, 130 after an interrupted sweep.
    """
    jobs = {name: job.description for name, job in JOBS.items()} | {"sweep": SWEEP_DESCRIPTION}
    tools = {name: description for name, (_, description) in TOOLS.items()}
    parser = argparse.ArgumentParser(
        prog="mmtpp",
        description=f"jobs:\n{_as_lines(jobs)}\n\ntools:\n{_as_lines(tools)}",
        epilog="mmtpp COMMAND --help lists the options of a command",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmtpp {_version()}")
    parser.add_argument("command", choices=[*jobs, *tools], metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        parser.print_help()
        return 0
    if not arguments[0].startswith("-") and arguments[0] not in (*jobs, *tools):
        parser.error(_unknown_command(arguments[0], [*jobs, *tools]))
    options = parser.parse_args(arguments)
    if options.command == "sweep":
        from mmtpp.cli.sweep_job import run_sweep_job

        return run_sweep_job(SWEEP_DESCRIPTION, options.arguments, prog="mmtpp sweep")
    if options.command in JOBS:
        return run_named_job(options.command, options.arguments, prog=f"mmtpp {options.command}")
    return _run_tool(options.command, options.arguments)


def _version() -> str:
    try:
        return version("mmtpp")
    except PackageNotFoundError:  # run from a copy of the repository
        return "(not installed)"


def _unknown_command(name: str, commands: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, commands, n=1)
    suggestion = f"did you mean {close[0]}?" if close else f"choose from {', '.join(commands)}"
    return f"no such command: {name}; {suggestion}"


def _as_lines(descriptions: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:9} {description}" for name, description in descriptions.items())


def _run_tool(name: str, arguments: Sequence[str]) -> int:
    start_logging()
    tool = importlib.import_module(TOOLS[name][0])
    parser = argparse.ArgumentParser(prog=f"mmtpp {name}")
    tool.add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        require_extras(TOOL_EXTRAS.get(name, ()), command=name)
        tool.run(options)
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
