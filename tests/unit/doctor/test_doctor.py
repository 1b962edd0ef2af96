"""``mmtpp doctor``: findings about this machine, and about services that do not run."""

import json
import stat
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from mmtpp.cli.doctor_command import as_text
from mmtpp.cli.main import main
from mmtpp.config.load import config_from_tree
from mmtpp.doctor import machine, services
from mmtpp.doctor.finding import Finding
from tests.helpers.paths import ROOT


@pytest.fixture(autouse=True)
def _without_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.chdir(tmp_path)


def test_a_working_installation_has_no_failures(tmp_path: Path, capsys):
    (tmp_path / "runs").mkdir()
    assert main(["doctor", "--json", "--set", f"run.storage_uri={tmp_path / 'runs'}"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    for about in ("python", "packages", "collectives", "run.storage_uri", "ray"):
        assert (findings[about]["status"], findings[about]["fix"]) == ("ok", ""), findings[about]
    assert findings["mlflow"]["status"] == "warning"  # the default is a file in this folder
    assert list((tmp_path / "runs").iterdir()) == []
    assert not (tmp_path / "mlruns.db").exists()


def test_the_check_of_the_storage_leaves_no_folder(tmp_path: Path, capsys):
    (tmp_path / "here").mkdir()
    locations = ["run.storage_uri=here/new/runs", "store.uri=store"]
    arguments = [word for location in locations for word in ("--set", location)]
    assert main(["doctor", "--json", *arguments]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["store.uri"]["status"] == findings["run.storage_uri"]["status"] == "ok"
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]


def test_failures_are_printed_with_their_fix(tmp_path: Path, capsys):
    blocked = tmp_path / "file"
    blocked.touch()
    arguments = ["--set", f"run.storage_uri={blocked}/runs", "--set", f"source.uri={tmp_path}/no"]
    assert main(["doctor", *arguments]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    for about in ("run.storage_uri", "source.uri"):
        [index] = [number for number, line in enumerate(lines) if about in line]
        assert lines[index].startswith("FAILURE")
        assert "fix: " in lines[index + 1]
    assert "2 of " in captured.err


def test_a_missing_or_old_package_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    requirements = [
        "numpy>=99",
        "no-such-thing>=1",
        "torch>=2",
        'absent>=1; extra == "local"',
        'absent>=1; extra == "train"',
        'ray[train]>=2; extra == "train"',
        'pandas>=99; extra == "tune"',
    ]
    monkeypatch.setattr(machine, "requires", lambda _: requirements)
    old, missing, train, track, tune = machine.check_packages()
    assert (old.status, missing.status) == ("failure", "failure")
    assert old.observed.startswith("numpy ")
    assert ">=99" in old.observed
    assert missing.observed.startswith("no-such-thing is missing")
    assert (train.subject, train.status) == ("extra train", "warning")
    assert train.observed == "absent is missing, >=1 is needed"
    assert train.fix == "pip install 'mmtpp[train]' for pretrain, finetune, plan and sweep"
    assert track.status == "ok"
    assert (tune.status, tune.observed.partition(" ")[0]) == ("failure", "pandas")


def test_a_plain_install_has_no_failure(monkeypatch: pytest.MonkeyPatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(
            f'{requirement}; extra == "{extra}"'
            for extra, optional in project["optional-dependencies"].items()
            for requirement in optional
        ),
    ]

    def installed_version(name: str) -> str:
        if name in ("deepspeed", "ninja", "mlflow", "optuna", "tomli-w"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(machine, "requires", lambda _: requirements)
    monkeypatch.setattr(machine, "version", installed_version)
    findings = list(machine.check_packages())
    assert [finding.status for finding in findings] == ["ok", *["warning"] * 3]
    assert "optuna is missing" in findings[3].observed


def test_services_that_do_not_run_are_failures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    config = config_from_tree({"tracking": {"uri": "http://127.0.0.1:9"}})
    refused = services.check_mlflow(config.tracking.uri)
    assert refused.status == "failure"
    assert "127.0.0.1:9 does not answer" in refused.observed
    assert "not running" in refused.fix
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(stat.S_IRUSR | stat.S_IRGRP)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    readable, address = services.check_ray()
    assert (readable.status, readable.fix) == ("warning", f"chmod 600 {token}")
    assert address.status == "failure"
    assert "RAY_API_SERVER_ADDRESS" in address.fix
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(services, "RAY_TIMEOUT_S", 3)
    *_, unreachable = services.check_ray()
    assert unreachable.status == "failure"
    assert "127.0.0.1:9" in unreachable.observed


def test_colours_are_printed_only_to_terminals():
    finding = Finding("gpu", "failure", "none", "buy one")
    assert "\033[31m" in as_text(finding, colours=True)
    assert "\033" not in as_text(finding, colours=False)
