"""Write the table of the application's arguments into docs/serving.md.

python docs/site/serve_arguments.py

The descriptions are the texts below the fields of ``ServeSettings``.
"""

import ast
import inspect
from itertools import pairwise
from pathlib import Path

from pydantic_core import PydanticUndefined

from mmtpp.serve.settings import ServeSettings

PAGE = Path(__file__).parents[1] / "serving.md"
TITLE = "\n## Arguments\n"
INTRODUCTION = """
Write `NAME=VALUE` after `serve run mmtpp.serve.app:build`, or below `args:` in a configuration.
`python docs/site/serve_arguments.py` writes this table.

| argument | default | description |
|---|---|---|
"""


def draw(page: str) -> str:
    """The page with a new section of arguments, which is its last one.

    Args:
        page: Text of the page.
    """
    texts = _texts_below_fields()
    rows = [
        f"| `{name}` | {_shown(field.default)} | {texts[name]} |\n"
        for name, field in ServeSettings.model_fields.items()
    ]
    return page.partition(TITLE)[0].rstrip("\n") + "\n" + TITLE + INTRODUCTION + "".join(rows)


def _shown(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    return "empty" if default == "" else f"`{default}`"


def _texts_below_fields() -> dict[str, str]:
    """The text below each field in the source code, by the name of the field."""
    [declaration] = ast.parse(inspect.getsource(ServeSettings)).body
    assert isinstance(declaration, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, below in pairwise(declaration.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        assert isinstance(below, ast.Expr), f"{field.target.id} has no text below it"
        text = " ".join(str(ast.literal_eval(below.value)).split())
        texts[field.target.id] = text.replace("``", "`").replace("|", r"\|")
    return texts


if __name__ == "__main__":
    PAGE.write_text(draw(PAGE.read_text()))
