"""The reference of the Python API: complete, and without external resources."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmtpp


def _public() -> dict[str, object]:
    members: dict[str, object] = {}
    for name in mmtpp.__all__:
        value = members[name] = getattr(mmtpp, name)
        if inspect.isclass(value):
            members |= {
                f"{name}.{key}": member
                for key, member in vars(value).items()
                if not key.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property | classmethod))
            }
    return members


@pytest.mark.parametrize("name", _public())
def test_every_public_function_documents_its_arguments(name: str):
    value = _public()[name]
    value = value.__func__ if isinstance(value, classmethod) else value
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    if inspect.isfunction(value):
        names = [key for key in inspect.signature(value).parameters if key not in ("self", "cls")]
        documented = set(re.findall(r"^    (\w+): ", text, re.MULTILINE))
        # the first line may document a single argument
        assert len(names) <= 1 or set(names) <= documented, f"{name} does not document {names}"


def test_the_pages_contain_every_public_name(tmp_path: Path):
    subprocess.run([sys.executable, "-m", "mmtpp.api.reference", str(tmp_path)], check=True)
    page = (tmp_path / "mmtpp.html").read_text()
    missing = [name for name in _public() if f'id="{name}"' not in page]
    assert not missing
    assert "<script src=" not in page.replace('<script src="search.js"', "")
    assert not re.findall(r'(?:src|<link[^>]* href)="https?://', page)  # no external resources
