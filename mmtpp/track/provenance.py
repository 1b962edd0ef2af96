"""Where a run comes from: settings as flat parameters, versions, revision."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmtpp.config.schema import RunConfig

PACKAGES = ("mmtpp", "torch", "ray", "deepspeed", "transformers", "peft", "mlflow", "numpy")


def flat_settings(config: RunConfig) -> dict[str, object]:
    """``section.key`` -> value for every setting."""
    flat: dict[str, object] = {}

    def walk(tree: dict[str, object], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(config.model_dump(mode="json"), "")
    return flat


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
