"""What every entry point does: parse, run, print one JSON object as the last line."""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import rich
from rich.text import Text

from mmtpp.config.load import parse_arguments, require
from mmtpp.config.schema import RunConfig
from mmtpp.config.summary import as_summary
from mmtpp.core.errors import MmtppError


def run_job(
    description: str,
    job: Callable[[RunConfig], Mapping[str, object]],
    *,
    required: Sequence[str],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a job from its command line.

    The result goes to standard output as one JSON object on the last line; everything else, errors
    and a summary for people included, goes to standard error.

    Args:
        description: first lines of ``--help``.
        job: takes the configuration and returns the result.
        required: settings this job cannot do without.
        argv: arguments, ``sys.argv`` when None.

    Returns:
        Exit status: 0, or 1 after an error a user can act on. Other exceptions pass through.
    """
    start_logging()
    started = time.monotonic()
    try:
        arguments = parse_arguments(description, argv)
        require(arguments.config, *required)
        if arguments.dry_run:
            result: Mapping[str, object] = arguments.config.model_dump(mode="json")
            sys.stdout.write(json.dumps(result, indent=2) + "\n")
        else:
            result = {**job(arguments.config), "seconds": round(time.monotonic() - started, 1)}
            given = sys.argv[1:] if argv is None else argv
            summary = as_summary(Path(sys.argv[0]).stem, result, arguments.config, given)
            sys.stderr.write(f"{summary}\n")
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0


def start_logging(prefix: str = "") -> None:
    """Log to standard error, one line a message: time, level, module, message.

    Where standard error is a terminal, warnings and errors have colours (unless NO_COLOR is set),
    and the lines stay above the bars of ``data.progress``.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        rich.reconfigure(stderr=True)
        handler = _TerminalHandler()
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format=f"%(asctime)s %(levelname)s {prefix}%(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    for name in ("httpx", "urllib3", "botocore", "alembic", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _TerminalHandler(logging.Handler):
    """Writes to rich's console. rich's own handler breaks long lines, and so URIs to be copied."""

    def emit(self, record: logging.LogRecord) -> None:
        color = "red" if record.levelno >= logging.ERROR else "yellow"
        style = color if record.levelno >= logging.WARNING else ""
        rich.get_console().print(Text(self.format(record), style), soft_wrap=True)
