"""Run a sweep from its command line, ``tune/sweep.py`` or ``mmtpp sweep``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtpp.cli.extras import require_extras
from mmtpp.core.errors import MmtppError
from mmtpp.runtime.logs import start_logging
from mmtpp.sweep.load_sweep import load_sweep

INTERRUPTED = 130  # exit status of a shell after SIGINT


def run_sweep_job(
    description: str, argv: Sequence[str] | None = None, *, prog: str | None = None
) -> int:
    """Run a sweep from its command line; print its result as one JSON object on the last line.

    Args:
        description: First lines of ``--help``.
        argv: Arguments; ``sys.argv`` when None.
        prog: Name of the program in ``--help``; that of the script when None.

    Returns:
        Exit status: 0, 1 after an error that the user can fix, 130 after an interruption.
    """
    start_logging()
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE.toml", type=Path, required=True, help="file of the sweep"
    )
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one setting; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the trials and stop")
    parser.add_argument(
        "--resume", action="store_true", help="fail unless this sweep was started before"
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="run the failed trials of a finished sweep again; a sweep whose trials all failed "
        "always runs them again",
    )
    options = parser.parse_args(argv)
    try:
        sweep = load_sweep(options.config, options.set)
        if options.dry_run:
            sys.stdout.write(json.dumps({"name": sweep.name, **sweep.preview()}) + "\n")
            return 0
        require_extras(("train", "track", "tune"), command="sweep")
        # imported here: Ray and MLflow, which a dry run does not need
        from mmtpp.sweep.run_sweep import run_sweep

        result = run_sweep(sweep, resume=options.resume, retry_failed=options.retry_failed)
    except MmtppError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command to resume the sweep\n")
        return INTERRUPTED
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    return 0
