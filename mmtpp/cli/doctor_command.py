"""Runs all checks and says how to mend what they find."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from mmtpp.config.load import load_config
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ClusterError
from mmtpp.doctor import machine, services
from mmtpp.doctor.finding import Finding
from mmtpp.storage.cache import default_cache_folder

_SIGNS = {"ok": ("ok     ", "32"), "warning": ("warning", "33"), "failure": ("FAILURE", "31")}


def add_arguments(doctor: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    doctor.description = (
        "Looks at Python, packages, GPUs, collectives, limits and disks of this machine, and tries "
        "the storage, the MLflow server and the Ray cluster that a job with these settings uses: "
        "it writes a small file and deletes it again. Run it on the head for the cluster's view."
    )
    doctor.epilog = "Exit status: 0, or 1 when a job could not run."
    doctor.add_argument("--config", metavar="FILE.toml", type=Path, help="settings of the job")
    doctor.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one setting; may be repeated",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings for programs")


def checks(config: RunConfig) -> list[Callable[[], Finding | Iterable[Finding]]]:
    """All of them, in order."""
    return [
        machine.check_python,
        machine.check_packages,
        machine.check_gpus,
        machine.check_collectives,
        machine.check_compiler,
        machine.check_limits,
        lambda: machine.check_disk(default_cache_folder()),
        lambda: services.check_storage(config),
        lambda: services.check_mlflow(config),
        services.check_ray,
    ]


def findings(config: RunConfig) -> Iterator[Finding]:
    """What each check finds, as it finds it."""
    for check in checks(config):
        found = check()
        yield from [found] if isinstance(found, Finding) else found


def run(options: argparse.Namespace) -> None:
    """Print what is found.

    Raises:
        ClusterError: a job could not run.
    """
    config = load_config(options.config, options.set)
    found: list[Finding] = []
    for each in findings(config):
        found.append(each)
        if not options.json:
            sys.stdout.write(as_text(each, colours=sys.stdout.isatty()) + "\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    failures = sum(each.status == "failure" for each in found)
    if failures:
        raise ClusterError(f"{failures} of {len(found)} findings would stop a job")


def as_text(finding: Finding, *, colours: bool) -> str:
    """One or two lines: what there is, and what to do about it."""
    sign, colour = _SIGNS[finding.status]
    if colours:
        sign = f"\033[{colour}m{sign}\033[0m"
    text = f"{sign}  {finding.about:15} {finding.what}"
    return f"{text}\n{'':26}fix: {finding.fix}" if finding.fix else text
