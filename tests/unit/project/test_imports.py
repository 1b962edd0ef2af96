"""Every name that the repository imports from itself exists; no module is imported for it."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OWN = ("mmtpp", "benchmarks", "cluster", "jobs", "tune", "tests")
FILES = sorted(path for name in OWN for path in (ROOT / name).rglob("*.py"))


@cache
def _names(path: Path) -> set[str] | None:
    """Names that a module defines or imports; None if it makes names while it runs."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
            if node.name == "__getattr__":
                return None
            continue  # what they define within is no name of the module
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names


def _missing(path: Path) -> list[str]:
    missing = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
            continue
        if node.module.partition(".")[0] not in OWN:
            continue
        place = ROOT / node.module.replace(".", "/")
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        names = _names(module) if module.is_file() else set()
        missing += [
            f"line {node.lineno}: {node.module}.{alias.name}"
            for alias in node.names
            if names is not None
            and alias.name not in names
            and not (place / f"{alias.name}.py").is_file()
            and not (place / alias.name).is_dir()
        ]
    return missing


def test_imported_names_exist():
    faults = {path.relative_to(ROOT).as_posix(): _missing(path) for path in FILES}
    assert {path: names for path, names in faults.items() if names} == {}


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("from mmtpp.core.errors import DataError", 0),
        ("from mmtpp.core import errors", 0),
        ("from mmtpp.core.errors import Nothing", 1),
        ("from mmtpp.core.nothing import DataError", 1),
        ("import numpy\nfrom numpy import nothing", 0),
    ],
)
def test_a_missing_name_is_found(tmp_path: Path, code: str, missing: int):
    (tmp_path / "code.py").write_text(code)
    assert len(_missing(tmp_path / "code.py")) == missing
