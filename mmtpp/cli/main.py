"""The ``mmtpp`` command: the jobs, and the tools beside them."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from mmtpp.cli.jobs import JOBS, run_named_job
from mmtpp.core.errors import MmtppError
from mmtpp.runtime.logs import start_logging

# imported on use: one tool needs matplotlib, another torch
TOOLS = {
    "convert": ("mmtpp.cli.convert_command", "write an event store for EasyTPP or HF datasets"),
    "doctor": ("mmtpp.cli.doctor_command", "check this installation and say how to fix it"),
    "inspect": ("mmtpp.cli.inspect_command", "show what a data set holds and how it compresses"),
    "plan": ("mmtpp.cli.plan_command", "estimate GPU memory, settings that fit, speed and cost"),
    "scaling": ("mmtpp.cli.scaling_command", "fit a scaling law to the trials of a sweep"),
    "settings": ("mmtpp.cli.settings_command", "list all settings of the jobs with their help"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job or a tool; 0, or 1 after an error a user can act on."""
    about = {name: job.description for name, job in JOBS.items()}
    jobs, tools = (
        "\n".join(f"  {name:9} {text}" for name, text in listing.items())
        for listing in (about, {name: text for name, (_, text) in TOOLS.items()})
    )
    parser = argparse.ArgumentParser(
        prog="mmtpp",
        description=f"jobs:\n{jobs}\n\ntools:\n{tools}",
        epilog="mmtpp COMMAND --help lists the options of a command",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=[*JOBS, *TOOLS], metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.command in JOBS:
        return run_named_job(given.command, given.arguments)
    return _run_tool(given.command, given.arguments)


def _run_tool(name: str, arguments: Sequence[str]) -> int:
    start_logging()
    tool = importlib.import_module(TOOLS[name][0])
    parser = argparse.ArgumentParser(prog=f"mmtpp {name}")
    tool.add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        tool.run(options)
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
