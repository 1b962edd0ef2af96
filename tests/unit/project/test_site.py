"""The documentation: the site builds strictly and needs no network, and the README stays short."""

import inspect
import os
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import mmtpp
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text().splitlines()


def _public() -> dict[str, object]:
    """The public names of the package, and the public members of its classes."""
    public: dict[str, object] = {}
    for name in mmtpp.__all__:
        value = public[name] = getattr(mmtpp, name)
        if inspect.isclass(value):
            public |= {
                f"{name}.{key}": member
                for key, member in vars(value).items()
                if not key.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property | classmethod))
            }
    return public


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site, built as ``make docs`` builds it; a broken link fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        links = re.findall(
            r"<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)", text
        )
        outside = [link for link in links if re.match(r"(https?:)?//", link)]
        assert not outside, f"{page.relative_to(site)}: {outside}"
        assert 'class="mermaid"' not in text  # its script would be fetched
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", style.read_text())


def test_pages_beside_the_code_are_in_the_site(site: Path):
    packages = [path.parent.relative_to(ROOT) for path in ROOT.glob("mmtpp/*/README.md")]
    assert len(packages) >= 12
    for name in (*packages, "jobs", "tune", "cluster"):
        title = (ROOT / name / "README.md").read_text().splitlines()[0].removeprefix("# ")
        assert title.split(":")[0] in (site / name / "index.html").read_text()
    # a link to a source file leads to a page that shows the file
    assert "source/mmtpp/train/loop.py.html" in (site / "walkthrough.html").read_text()
    assert "samples_per_step" in (site / "source/mmtpp/train/loop.py.html").read_text()


def test_the_reference_has_every_public_name(site: Path):
    page = (site / "api.html").read_text()
    missing = [name for name in _public() if f'id="mmtpp.{name}"' not in page]
    assert not missing


@pytest.mark.parametrize("name", _public())
def test_public_names_describe_their_arguments(name: str):
    value = _public()[name]
    value = value.__func__ if isinstance(value, classmethod) else value
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    if inspect.isfunction(value):
        arguments = [
            key for key in inspect.signature(value).parameters if key not in ("self", "cls")
        ]
        described = set(re.findall(r"^    (\w+): ", text, re.MULTILINE))
        # a single argument may be described in the first line
        assert len(arguments) <= 1 or set(arguments) <= described, f"{name}: {arguments}"


PAGES_OF_CODE = ("walkthrough", "architecture", "glossary")


@pytest.mark.parametrize("name", PAGES_OF_CODE)
def test_a_page_names_functions_and_classes_that_exist(name: str):
    source = "\n".join(path.read_text() for path in (ROOT / "mmtpp").rglob("*.py"))
    defined = set(re.findall(r"^ *(?:def|class) (\w+)", source, re.MULTILINE))
    page = (ROOT / "docs" / f"{name}.md").read_text()
    spans = set(re.findall(r"`([\w.]+)`", page)) - set(flat_settings(RunConfig()))
    names = {part for span in spans if not span.endswith(".py") for part in span.split(".")}
    functions = {part for part in names if re.fullmatch(r"_?[a-z]+(_[a-z]+)+", part)}
    classes = {part for part in names if re.fullmatch(r"([A-Z][a-z]+){2,}", part)}
    # the tables of the other pages also name attributes and values of settings
    known = defined if name == "walkthrough" else set(re.findall(r"\w+", source))
    assert functions - known == set()
    assert classes - defined - {"DataParallelTrainer"} == set()


def _names_in_files(page: str) -> list[tuple[str, str]]:
    """Names of code that stand next to a link to a Python file, and the path of the file.

    They are written ```name`, `name` in [text](path.py)`` or ```name` ([text](path.py))``.
    """
    before_link = r"((?:`[\w.]+`(?:,? and |, )?)+)(?:\s+in\s+|\s+\()\[[^\]]*\]\(([^)#]+\.py)\)"
    return [
        (name, path)
        for spans, path in re.findall(before_link, page)
        for span in re.findall(r"`([\w.]+)`", spans)
        for name in span.split(".")
    ]


@pytest.mark.parametrize("name", PAGES_OF_CODE[:2])
def test_names_next_to_a_link_are_in_the_linked_file(name: str):
    page = ROOT / "docs" / f"{name}.md"
    named = _names_in_files(page.read_text())
    assert len(named) > 40
    missing = [
        f"{path}: {part}"
        for part, path in named
        if not re.search(rf"\b{part}\b", (page.parent / path).read_text())
    ]
    assert not missing


def test_names_next_to_a_link_are_found():
    page = "`a_b` and `C.d` in [x](../x.py), `e`\n([y](y.py)), `f` in [z](z.md)"
    assert _names_in_files(page) == [
        ("a_b", "../x.py"),
        ("C", "../x.py"),
        ("d", "../x.py"),
        ("e", "y.py"),
    ]


def test_the_readme_is_short():
    assert len(README) <= 130
    assert max(map(len, README)) <= 120


def _long_lines(text: str, *, width: int) -> list[str]:
    """Lines of prose that are too long; tables, code and the targets of links do not count."""
    prose = re.sub(r"^ *(`{3,}).*?^ *\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith("|")]
    return [line for line in lines if len(re.sub(r"\]\([^)]*\)", "]", line)) > width]


def test_prose_is_wrapped():
    generated = ROOT / "mmtpp" / "config" / "README.md"
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("mmtpp/*/README.md")]
    assert len(pages) > 30
    long = {
        str(page.relative_to(ROOT)): lines
        for page in pages
        if page != generated and (lines := _long_lines(page.read_text(), width=120))
    }
    assert not long, "wrap these lines to 120 columns"


def test_only_prose_counts_as_a_long_line():
    long = "word " * 30
    text = f"{long}\n| {long} |\n```sh\n{long}\n```\n[a](https://{'b' * 200})\n- {long}\n"
    assert _long_lines(text, width=120) == [long, f"- {long}"]


def test_pictures_are_readable_in_light_and_dark():
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
    assert len(pictures) == 5
    for picture in pictures:
        text = picture.read_text()
        assert ElementTree.fromstring(text)[0].tag.endswith("title")
        assert "prefers-color-scheme: dark" in text
        assert not re.findall(r"(?:href|src)=", text)


def test_the_forecast_fan_is_drawn_by_its_script():
    script = runpy.run_path(str(ROOT / "docs" / "site" / "forecast_fan.py"))
    assert script["draw"]() == script["PICTURE"].read_text()


def test_the_arguments_of_the_service_are_up_to_date():
    script = runpy.run_path(str(ROOT / "docs" / "site" / "serve_arguments.py"))
    page = script["PAGE"].read_text()
    assert script["draw"](page) == page, "run python docs/site/serve_arguments.py"
    assert "| `model_uri` | required | Folder of the model" in page
