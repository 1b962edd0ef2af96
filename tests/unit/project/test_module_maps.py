"""Every module is named on the map of its package: its README, or the docstring of `__init__`."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(path.parent.name for path in (ROOT / "mmtpp").glob("*/__init__.py"))


def _named(text: str, package: str) -> set[str]:
    """Names of the modules of a package in a text: alone between backticks, or in a drawn tree.

    ``mmtpp/core/past/past_events.py`` on the page of another package is no module of that
    package, and ``jobs/x.py`` in a command is no name of a module.
    """
    named: set[str] = set()
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        named |= set(re.findall(r"(?<![\w/])(\w+)\.py\b", block))
    for span in re.findall(r"`+([\w/]+)(?:\.py)?`+", text):
        path = span.removeprefix(f"mmtpp/{package}/")
        if not path.startswith("mmtpp/"):
            named.add(path.rpartition("/")[2])
    return named


def _missing(package: str) -> set[str]:
    folder = ROOT / "mmtpp" / package
    texts = [
        ast.get_docstring(ast.parse(path.read_text())) or "" for path in folder.rglob("__init__.py")
    ]
    if (folder / "README.md").is_file():
        texts.append((folder / "README.md").read_text())
    modules = {path.stem for path in folder.rglob("*.py")} - {"__init__", "__main__"}
    return modules - _named("\n".join(texts), package)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_the_map_of_its_package(package: str):
    missing = sorted(_missing(package))
    page = f"mmtpp/{package}/README.md or the docstring of mmtpp/{package}/__init__.py"
    assert not missing, f"name these modules in {page}: {', '.join(missing)}"


def test_packages_are_found():
    assert {"core", "data", "model", "train"} <= set(PACKAGES)


@pytest.mark.parametrize(
    "page", ["docs/architecture.md", "CONTRIBUTING.md", "docs/pictures/architecture.svg"]
)
def test_every_package_is_on_the_pages_of_the_architecture(page: str):
    named = set(re.findall(r"(\w+)/", (ROOT / page).read_text()))
    assert set(PACKAGES) - named == set()


def test_the_table_of_packages_is_complete():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("## Four decisions")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)/`", " ".join(rows))) == PACKAGES


def test_names_are_read_from_spans_and_trees():
    text = (
        "| `paths`, ``folder/parquet.py`` | `mmtpp/storage/hub.py`, `mmtpp/core/seeds.py` |\n"
        "`mmtpp settings WORD`, cache, `python jobs/prepare.py`\n"
        "```\n├─ worker.py   a rank; rank_group.py: its place\n```\n"
        "```sh\npython jobs/pretrain.py\n```\n"
    )
    assert _named(text, "storage") == {"paths", "parquet", "hub", "worker", "rank_group"}
