"""Run a job from its command line and print its result as one JSON object."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from mmtpp.cli.summary import as_summary
from mmtpp.config.load import parse_arguments, require
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import MmtppError
from mmtpp.runtime.logs import start_logging


def run_job(
    run: Callable[[RunConfig], Mapping[str, object]],
    *,
    name: str,
    description: str,
    required: Sequence[str],
    check: Callable[[RunConfig], None] | None = None,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
) -> int:
    """Run a job from its command line.

    The last line of standard output is the result, as one JSON object. A dry run prints the
    resolved settings instead, as indented JSON. Errors, log lines and the summary go to standard
    error.

    Args:
        run: Function that does the work of the job: configuration in, result out.
        name: Name of the job, for its summary.
        description: First lines of ``--help``.
        required: Settings without a default.
        check: Check of the settings in a dry run; the job itself makes it too. None for no check.
        argv: Arguments; ``sys.argv`` when None.
        prog: Name of the command in ``--help``; None for that of the process.

    Returns:
        Exit status: 0, or 1 after an error that the user can fix. Other exceptions are raised.
    """
    start_logging()
    started = time.monotonic()
    try:
        arguments = parse_arguments(description, argv, prog=prog)
        require(arguments.config, *required)
        if arguments.dry_run:
            if check is not None:
                check(arguments.config)
            settings = arguments.config.model_dump(mode="json")
            sys.stdout.write(json.dumps(settings, indent=2) + "\n")
            return 0
        result = {**run(arguments.config), "seconds": round(time.monotonic() - started, 1)}
        words = sys.argv[1:] if argv is None else argv
        summary = as_summary(name, result, arguments.config, words)
        sys.stderr.write(f"{summary}\n")
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0
