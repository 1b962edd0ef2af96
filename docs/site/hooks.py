"""MkDocs hooks: the pages next to the code become pages of the site.

Every page of the repository (``mmtpp/core/README.md``) keeps its path in the site. Links are
written as GitHub needs them, relative to the page in the repository. Here they become links of the
site. A link to a source file leads to a page that shows the file, so the site needs no other
server.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs"
SOURCE = "source"  # folder of the site for pages that show source files
MODULES = "modules.md"  # generated: every module with the first sentence of its docstring
SKIPPED = {DOCS, "build", "dist", "mlruns", "own", "tests", "venv"}  # have no pages of the site
PICTURES = {".png", ".svg", ".jpg"}
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}

CODE = re.compile(
    r"^(?P<fence>`{3,})[^\n]*\n.*?^(?P=fence)[ \t]*$|`[^`\n]+`", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"""(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^)\s"]+)""")
LIST_AFTER_TEXT = re.compile(r"^(?P<text>(?![-|#> ]|\d+\. ).+)\n(?=(?:- |1\. ))", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages next to the code, and the pictures and source files that pages link to."""
    pages = sorted(_project_pages())
    for path in pages:
        files.append(_file(config, path, path))
    documents = [f"{DOCS}/{file.src_uri}" for file in files if file.src_uri.endswith(".md")]
    documents = [path for path in documents if (ROOT / path).is_file()] + pages
    files.append(File.generated(config, MODULES, content=_modules_page()))
    targets = {target for path in documents for target in _linked_files(path)}
    targets |= {path.as_posix() for path, _ in _modules()}
    for target in sorted(targets - set(pages)):
        uri = _site_path(target)
        if uri.startswith(f"{SOURCE}/"):
            files.append(File.generated(config, uri, content=_source_page(target)))
        elif not target.startswith(f"{DOCS}/"):
            files.append(_file(config, uri, target))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page, and fit its Markdown to Python-Markdown."""
    uri = page.file.src_uri
    if uri.startswith(f"{SOURCE}/") and not uri.endswith(".ipynb.md"):
        return markdown
    if uri == MODULES:
        return markdown
    repository_path = f"{DOCS}/{uri}" if (ROOT / DOCS / uri).is_file() else uri
    if uri.endswith(".ipynb.md"):
        repository_path = uri.removeprefix(f"{SOURCE}/").removesuffix(".md")

    def rewrite(text: str) -> str:
        text = LIST_AFTER_TEXT.sub(r"\g<text>\n\n", text)  # as Python-Markdown needs it
        return LINK.sub(
            lambda link: link["before"] + _rewritten(link["target"], repository_path, uri), text
        )

    return _outside_code(markdown, rewrite)


def _project_pages() -> Iterator[str]:
    """Paths of the repository's pages outside docs/."""
    for place in ROOT.iterdir():
        if place.name in SKIPPED or place.name.startswith("."):
            continue
        for path in [place] if place.is_file() else place.rglob("*.md"):
            if path.suffix == ".md":
                yield path.relative_to(ROOT).as_posix()


def _file(config: MkDocsConfig, uri: str, path: str) -> File:
    return File.generated(config, uri, abs_src_path=str(ROOT / path))


def _outside_code(markdown: str, rewrite: Callable[[str], str]) -> str:
    """Apply a function to the text between code blocks and code spans."""
    parts, end = [], 0
    for code in CODE.finditer(markdown):
        span = code.group()
        is_block = code["fence"] is not None
        # GitHub needs the backslash before a bar in a table's code, Python-Markdown shows it
        parts += [markdown[end : code.start()], span if is_block else span.replace("\\|", "|")]
        end = code.end()
    parts.append(markdown[end:])
    parts[::2] = [rewrite(text) for text in parts[::2]]
    return "".join(parts)


def _linked_files(path: str) -> Iterator[str]:
    """Paths of the files in the repository that a page links to."""
    markdown = CODE.sub("", (ROOT / path).read_text())
    for link in LINK.finditer(markdown):
        target = _repository_path(link["target"], path)
        if target is not None:
            yield target


def _repository_path(link: str, path: str) -> str | None:
    """Path of the file that a relative link leads to; None if the link is not one to a file."""
    name = link.partition("#")[0]
    if not name or ":" in name or name.startswith("/"):
        return None
    target = normpath(str(PurePosixPath(path).parent / name))
    if (ROOT / target / "README.md").is_file():
        return f"{target}/README.md".removeprefix("./")
    return target if (ROOT / target).exists() and not target.startswith("..") else None


def _site_path(target: str) -> str:
    """Path in the site of a file of the repository."""
    if target.startswith(f"{DOCS}/") and target.endswith((".md", *PICTURES)):
        return target.removeprefix(f"{DOCS}/")
    if target.endswith((".md", *PICTURES)):
        return target
    return f"{SOURCE}/{target.lstrip('.')}.md"


def _rewritten(link: str, path: str, uri: str) -> str:
    target = _repository_path(link, path)
    if target is None:
        return link
    anchor = link.partition("#")[1] + link.partition("#")[2]
    return relpath(_site_path(target), str(PurePosixPath(uri).parent)) + anchor


def _source_page(target: str) -> str:
    """A page that shows a source file, a notebook or the files of a folder."""
    path = ROOT / target
    front = "---\nsearch:\n  exclude: true\n---\n"
    if path.suffix == ".ipynb":
        return "".join(_cells(json.loads(path.read_text())))
    if path.is_dir():
        names = sorted(name.name for name in path.iterdir() if name.name != "__pycache__")
        return f"{front}# {target}\n\n" + "".join(f"- `{name}`\n" for name in names)
    language = LANGUAGES.get(path.suffix, "text")
    return f"{front}# {target}\n\n`````{language}\n{path.read_text()}\n`````\n"


def _modules() -> Iterator[tuple[Path, str]]:
    """Path and docstring of every module of the package that has one."""
    for path in sorted((ROOT / "mmtpp").rglob("*.py"), key=lambda path: (path.parent, path.name)):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if docstring:
            yield path.relative_to(ROOT), docstring


def _modules_page() -> str:
    """The page of all modules, by package."""
    lines = ["# Modules", "", "The first sentence of every module's docstring.", ""]
    package = None
    for path, docstring in _modules():
        if path.parent != package:
            package = path.parent
            lines += ["", f"## {package}/", "", "| module | |", "|---|---|"]
        paragraph = " ".join(docstring.split("\n\n")[0].split())
        sentence = (
            re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0].replace("``", "`").replace("|", "\\|")
        )
        lines.append(f"| [`{path.stem}`]({_site_path(path.as_posix())}) | {sentence} |")
    return "\n".join(lines) + "\n"


def _cells(notebook: dict) -> Iterator[str]:
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        yield f"```python\n{text}\n```\n\n" if cell["cell_type"] == "code" else f"{text}\n\n"
