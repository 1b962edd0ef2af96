"""The worked examples: the code of the page is applied to a copy of the package and tested."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "worked-examples.md").read_text()
SECTIONS = dict(re.findall(r"^## (Add .*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
KIND = "Add a kind of model"  # a list of places, without code
# the kind itself, or a class or a style that stands for one
ASKS_FOR_KIND = re.compile(
    r"\bModelKind\b|isinstance\([^()]*\b(Expert|ExpertInputs|SoftModel)\b|style [!=]= SOFT"
    r"|\b(inputs|sections)\.soft is\b"
)
EXAMPLES = {name: text for name, text in SECTIONS.items() if name != KIND}


def _apply_diff(root: Path, diff: str) -> None:
    """Replace the lines of a diff that begin with "-" by the lines that begin with "+"."""
    head, _, body = diff.partition("\n")
    path = root / head.removeprefix("--- ")
    lines = body.splitlines(keepends=True)
    before, after = ("".join(line[1:] for line in lines if line[0] == mark) for mark in "-+")
    text = path.read_text()
    assert text.count(before) == 1, f"{path.relative_to(root)} does not have once:\n{before}"
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_works_on_a_copy_of_the_package(name: str, tmp_path: Path):
    shutil.copytree(
        ROOT / "mmtpp", tmp_path / "mmtpp", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "unit" / "generators.py", tmp_path / "tests" / "unit")
    for helper in ("helpers/tiny_models.py", "parity/families.py"):
        (tmp_path / "tests" / helper).parent.mkdir()
        shutil.copy(ROOT / "tests" / helper, tmp_path / "tests" / helper)
    tests: list[str] = []
    for language, code in re.findall(
        r"^```(python|diff)\n(.*?)^```", EXAMPLES[name], re.DOTALL | re.MULTILINE
    ):
        if language == "diff":
            _apply_diff(tmp_path, code)
            continue
        path = code.partition("\n")[0].removeprefix("# ")
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code)
        tests += [path] if path.startswith("tests/") else []
    assert tests
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", *tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_its_examples():
    assert list(EXAMPLES) == [
        "Add a source",
        "Add a metric",
        "Add a metric of futures",
        "Add a compression strategy",
        "Add a task",
        "Add an optimiser",
        "Add a family",
    ]


def test_all_places_that_ask_for_the_kind_of_a_model_are_listed():
    asking = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mmtpp").rglob("*.py")
        if ASKS_FOR_KIND.search(path.read_text())
    }
    assert len(asking) > 8
    listed = set()
    for line in SECTIONS[KIND].splitlines():
        place = line.split("|")[1] if line.startswith("|") else ""
        listed |= set(re.findall(r"\]\(\.\./(mmtpp/[\w/]+\.py)\)", place))
        module = re.search(r"\]\(\.\./(mmtpp/[\w/]+\.py)\)", place)
        for name in re.findall(r"`([\w.]+)`", place):
            assert module is not None
            source = (ROOT / module[1]).read_text()
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", source), f"{module[1]}: {name}"
    assert listed == asking
