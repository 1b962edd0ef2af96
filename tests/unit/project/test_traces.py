"""The check of ``tests/conftest.py`` that no test leaves a trace, and that no merge did."""

import subprocess
from pathlib import Path

import pytest

from tests import conftest


def test_a_changed_variable_is_reported():
    before = {"KEPT": "1", "CHANGED": "1", "DELETED": "1"}
    after = {"KEPT": "1", "CHANGED": "2", "ADDED": "3", "PYTEST_CURRENT_TEST": "a test"}
    assert conftest.changed_variables(before, after) == {
        "CHANGED": "'1' became '2'",
        "DELETED": "'1' became None",
        "ADDED": "None became '3'",
    }


def test_a_new_or_deleted_file_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conftest, "ROOT", tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").touch()
    files = conftest.RepositoryFiles()
    (tmp_path / "package" / "__pycache__").mkdir()
    (tmp_path / "package" / "__pycache__" / "module.pyc").touch()
    assert files.find_changes() == []
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "package" / "module.py").unlink()
    expected = [str(tmp_path / "mlruns"), str(tmp_path / "package" / "module.py")]
    assert files.find_changes() == expected
    assert files.find_changes() == []


def test_no_file_has_the_marks_of_a_merge():
    marks = ["-e", "^" + "<" * 7 + " ", "-e", "^" + ">" * 7 + " "]
    done = subprocess.run(
        ["git", "grep", "-l", *marks],
        cwd=conftest.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 1, done.stderr  # no match, and no error
