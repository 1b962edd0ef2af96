"""The direction of imports, held as a table; a lazy import counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "mmtpp"
NUMPY = {"numpy"}
OWN = {
    "core": set(),
    "config": {"core"},
    "storage": {"core"},
    "track": {"core", "config", "storage"},
    "model": {"core", "storage"},
    "data": {"core", "config", "storage", "model.processor", "model.vocabulary"},
    "train": {"core", "config", "storage", "track", "model", "data"},
    "evaluate": {"core", "config", "storage", "track", "model", "data", "train", "page"},
    "page": set(),
    "inspect": {"core", "config", "storage", "model.vocabulary", "data", "page"},
    "api": {
        "core",
        "config",
        "storage",
        "model",
        "data",
        "train.template_record",
        "evaluate",
        "",
    },  # the package, for its reference
    "doctor": {"core", "config", "storage", "track"},
    "exchange": {"core", "storage", "data", "model.processor"},
}
THIRD_PARTY = {
    "core": NUMPY,
    "config": {"pydantic", "rich"},
    "storage": {"numpy", "pyarrow", "huggingface_hub"},
    "track": {"mlflow", "pandas"},
    "model": {
        "numpy",
        "torch",
        "transformers",
        "peft",
        "PIL",
        "safetensors",
        "tokenizers",
        "orjson",
    },
    "data": {
        "numpy",
        "pyarrow",
        "ray",
        "pandas",
        "PIL",
        "defusedxml",
        "orjson",
        "shapefile",
        "rich",
    },
    "train": {
        "numpy",
        "psutil",
        "pyarrow",
        "torch",
        "ray",
        "deepspeed",
        "safetensors",
        "torchao",
        "transformers",
    },
    "evaluate": {
        "numpy",
        "pyarrow",
        "torch",
        "ray",
        "scipy",
        "matplotlib",
        "sacrebleu",
        "rouge_score",
        "markupsafe",
    },
    "page": {"matplotlib", "jinja2", "markupsafe"},
    "inspect": {"numpy", "pyarrow", "matplotlib"},
    "api": {
        "pdoc",
        "numpy",
        "pyarrow",
        "torch",
        "mlflow",
        "pandas",
    },  # MLflow loads a model of its own kind from it
    "doctor": {"torch", "packaging"},
    "exchange": {"pyarrow"},
}
MAIN = {
    "argparse", "importlib", "sys", "collections.abc", "mmtpp.config.job", "mmtpp.core.errors"
}  # fmt: skip
PUBLIC = {
    "importlib", "typing", "mmtpp.api.forecaster", "mmtpp.api.sequences", "mmtpp.core.events",
    "mmtpp.data.images", "mmtpp.evaluate.next_event",
}  # fmt: skip
FILES = sorted((ROOT / PROJECT).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_layer_may(path: Path):
    parts = path.relative_to(ROOT / PROJECT).with_suffix("").parts
    layer = parts[0]
    if len(parts) == 1:
        commands = {"__init__": PUBLIC, "__main__": MAIN}
        assert commands[layer] == _imports(path)
        return
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == PROJECT:
            within = rest.split(".")[0] == layer
            allowed = any(rest == own or rest.startswith(own + ".") for own in OWN[layer])
            assert within or allowed, f"{layer} may not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY[layer], f"{layer} may not import {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_entry_points_hold_no_logic(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    tree = ast.parse(text)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.For | ast.While)]
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("mmtpp", "numpy pydantic pyarrow torch ray transformers mlflow deepspeed"),
        ("mmtpp.core.template, mmtpp.config.load", "torch ray transformers mlflow deepspeed"),
        ("mmtpp.data.prepare", "torch deepspeed transformers mlflow"),
        # what drivers and Ray Train's controller import
        ("mmtpp.train.launch, mmtpp.train.entry", "deepspeed transformers peft matplotlib"),
        ("tune.trial", "deepspeed transformers peft matplotlib"),
    ],
)
def test_light_layers_load_nothing_heavy(modules: str, absent: str):
    code = f"import {modules}, sys; print(*sorted(set('{absent}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
