"""What every entry point does: parse, run, print one JSON object as the last line."""

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
    description: str,
    job: Callable[[RunConfig], Mapping[str, object]],
    *,
    name: str,
    required: Sequence[str],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a job from its command line.

    The result goes to standard output as one JSON object on the last line; everything else, errors
    and a summary for people included, goes to standard error.

    Args:
        description: first lines of ``--help``.
        job: Takes the configuration and returns the result.
        name: Name of the job, for its summary.
        required: Settings without a default.
        argv: Arguments; ``sys.argv`` when None.

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
            summary = as_summary(name, result, arguments.config, given)
            sys.stderr.write(f"{summary}\n")
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0
