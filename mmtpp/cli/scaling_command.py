"""``mmtpp scaling``: fit a scaling law to the trials of a sweep."""

import argparse
import json
import sys

from mmtpp.storage.paths import join, read_bytes, write_bytes
from mmtpp.sweep.scaling import Trials, build_report


def add_arguments(scaling: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    scaling.description = (
        "Fits a scaling law to the trials of a sweep and writes scaling.md and scaling.png next to "
        "the sweep's report."
    )
    scaling.add_argument("--result", metavar="URI", required=True, help="result.json of a sweep")


def run(options: argparse.Namespace) -> None:
    """Fit the law, print it and write the report.

    Raises:
        MmtppError: The file is missing, or has too few trials for a fit.
    """
    result = json.loads(read_bytes(options.result))
    text, figure = build_report(Trials.from_result(result))
    sys.stdout.write(f"{text}\n")
    write_bytes(join(result["report_uri"], "scaling.md"), text.encode())
    write_bytes(join(result["report_uri"], "scaling.png"), figure)
