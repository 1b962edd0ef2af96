"""``python -m mmtpp COMMAND``: tools beside the jobs."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from mmtpp.config.job import start_logging
from mmtpp.core.errors import MmtppError

# imported when asked for: one needs matplotlib, the other torch
COMMANDS = {
    "convert": ("mmtpp.exchange.command", "an event store for EasyTPP or Hugging Face datasets"),
    "doctor": ("mmtpp.doctor.command", "what is wrong with this installation, and how to mend it"),
    "inspect": ("mmtpp.inspect.command", "what a data set holds and how it would be compressed"),
    "plan": ("mmtpp.train.plan_command", "memory of each GPU, settings that fit, speed and cost"),
    "settings": ("mmtpp.config.reference", "all settings of the jobs with their help, or some"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 after an error a user can act on."""
    start_logging()
    listing = "\n".join(f"  {name:9} {about}" for name, (_, about) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m mmtpp",
        description=f"commands:\n{listing}",
        epilog="python -m mmtpp COMMAND --help tells its options",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    command = importlib.import_module(COMMANDS[given.command][0])
    own = argparse.ArgumentParser(prog=f"python -m mmtpp {given.command}")
    command.add_arguments(own)
    options = own.parse_args(given.arguments)
    try:
        command.run(options)
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
