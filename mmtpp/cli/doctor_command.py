"""``mmtpp doctor``: check this installation and print how to fix problems."""

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
    """Add the options of the command."""
    doctor.description = (
        "Checks Python, packages, GPUs, collectives, limits and disks of this machine, and the "
        "storage, the MLflow server and the Ray cluster that a job with these settings uses. The "
        "check of the storage writes and deletes a small file. Run this command on the head of a "
        "cluster to check the cluster."
    )
    doctor.epilog = "Exit status: 0, or 1 if a job could not run."
    doctor.add_argument("--config", metavar="FILE.toml", type=Path, help="settings of the job")
    doctor.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one setting; may be repeated",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")


def checks(config: RunConfig) -> list[Callable[[], Finding | Iterable[Finding]]]:
    """Return all checks, in order."""
    return [
        machine.check_python,
        machine.check_packages,
        machine.check_gpus,
        machine.check_collectives,
        machine.check_compiler,
        machine.check_process_limits,
        lambda: machine.check_disk(default_cache_folder()),
        lambda: services.check_storage(
            source_uri=config.source.uri,
            store_uri=config.store.uri,
            runs_uri=config.run.storage_uri,
        ),
        lambda: services.check_mlflow(config.tracking.uri),
        services.check_ray,
    ]


def findings(config: RunConfig) -> Iterator[Finding]:
    """Run the checks one by one and yield their findings."""
    for check in checks(config):
        outcome = check()
        yield from [outcome] if isinstance(outcome, Finding) else outcome


def run(options: argparse.Namespace) -> None:
    """Print the findings.

    Raises:
        ClusterError: A job could not run.
    """
    config = load_config(options.config, options.set)
    all_findings: list[Finding] = []
    for finding in findings(config):
        all_findings.append(finding)
        if not options.json:
            sys.stdout.write(as_text(finding, colours=sys.stdout.isatty()) + "\n")
            sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in all_findings], indent=2) + "\n")
    failures = sum(finding.status == "failure" for finding in all_findings)
    if failures:
        raise ClusterError(f"{failures} of {len(all_findings)} findings would stop a job")


def as_text(finding: Finding, *, colours: bool) -> str:
    """Format a finding in one line, and its fix in a second one."""
    sign, colour = _SIGNS[finding.status]
    if colours:
        sign = f"\033[{colour}m{sign}\033[0m"
    text = f"{sign}  {finding.subject:15} {finding.observed}"
    return f"{text}\n{'':26}fix: {finding.fix}" if finding.fix else text
