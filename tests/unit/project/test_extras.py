"""What works without the optional packages, and what an error says where they are needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mmtpp.cli import extras
from mmtpp.cli.extras import EXTRAS, require_extras
from mmtpp.core.errors import ConfigError

ROOT = Path(__file__).parents[3]
OPTIONAL = [name for names in EXTRAS.values() for name in names]


@pytest.mark.parametrize(
    "module",
    [
        "mmtpp.api.forecaster",
        "mmtpp.api.sequences",
        "mmtpp.data.prepare",
        "mmtpp.predict.predict",
        "mmtpp.stream.stream_job",
        "mmtpp.cli.main",
        "mmtpp.cli.convert_command",
        "mmtpp.cli.doctor_command",
        "mmtpp.cli.inspect_command",
        "mmtpp.cli.scaling_command",
        "mmtpp.cli.settings_command",
    ],
)
def test_the_plain_install_imports(module: str):
    """A name that is None in ``sys.modules`` cannot be imported, as if it were not installed."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL}))
import {module}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_extras_are_those_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, packages in EXTRAS.items():
        declared = " ".join(project["optional-dependencies"][extra]).replace("-", "_")
        plain = " ".join(project["dependencies"]).replace("-", "_")
        for package in packages:
            assert package in declared
            assert f"{package}>" not in plain


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extras, "EXTRAS", {**EXTRAS, "train": ("numpy", "no_such_package_x")})
    with pytest.raises(ConfigError) as caught:
        require_extras(("train", "track"), command="pretrain")
    message = str(caught.value)
    assert "mmtpp pretrain needs packages that are not installed: no_such_package_x" in message
    assert "pip install 'mmtpp[train]'" in message
    assert "mlflow" not in message


def test_what_is_installed_passes():
    require_extras(tuple(EXTRAS), command="pretrain")
