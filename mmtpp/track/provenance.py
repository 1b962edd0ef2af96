"""Provenance of a run: versions of Python, packages and mmtpp."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("mmtpp", "torch", "ray", "deepspeed", "transformers", "peft", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and packages, and the git revision if there is one."""
    tags = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            tags[f"version.{package}"] = "not installed"
    if shutil.which("git") is None:
        return tags
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if revision.returncode == 0:
        tags["mmtpp.git_revision"] = revision.stdout.strip()
    return tags
