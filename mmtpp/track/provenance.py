"""Where a run comes from: settings as flat parameters, versions, revision."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("mmtpp", "torch", "ray", "deepspeed", "transformers", "peft", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """Versions of what computes, and the git revision when there is one."""
    found = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            found[f"version.{package}"] = "not installed"
    if shutil.which("git") is None:
        return found
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if revision.returncode == 0:
        found["mmtpp.git_revision"] = revision.stdout.strip()
    return found
