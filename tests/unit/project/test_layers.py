"""The direction of imports, held as a table; a lazy import counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = "mmtpp"
OWN = {
    "core": set(),
    "compat": set(),
    "config": {"core"},
    "storage": {"core"},
    "track": {"core", "config", "storage"},
    "runtime": {"core", "config", "compat"},
    "model": {"core", "config", "storage", "compat"},
    "experiments": {"core", "config"},
    "data": {
        "core",
        "config",
        "storage",
        "runtime",
        "model.processor",
        "model.vocabulary",
        "model.folder",
    },
    "train": {
        "core",
        "config",
        "storage",
        "runtime",
        "track",
        "model",
        "data",
        "experiments",
        "compat",
    },
    "planner": {"core", "config", "model", "train", "experiments", "compat"},
    "evaluate": {"core", "config", "storage", "runtime", "track", "model", "data"},
    "predict": {"core", "config", "storage", "runtime", "track", "model", "data", "evaluate"},
    "inspect": {"core", "config", "storage", "model", "data", "evaluate.report.style"},
    "api": {"core", "config", "storage", "model", "data", "evaluate", "predict", ""},
    "doctor": {"core", "config", "storage", "runtime", "track"},
    "exchange": {"core", "storage", "data", "model.processor"},
    "sweep": {
        "core",
        "config",
        "storage",
        "runtime",
        "track",
        "data",
        "train",
        "evaluate",
        "compat",
    },
    "cli": {
        "core",
        "config",
        "storage",
        "runtime",
        "data",
        "planner",
        "doctor",
        "inspect",
        "exchange",
        "sweep",
        "train",
    },
}
THIRD_PARTY = {
    "core": {"numpy", "scipy"},
    "compat": {"ray", "torch", "deepspeed"},
    "config": {"pydantic"},
    "storage": {"numpy", "pyarrow", "huggingface_hub"},
    "track": {"mlflow", "pandas"},
    "runtime": {"ray", "rich"},
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
    "experiments": {"torch"},
    "data": {"numpy", "pyarrow", "ray", "pandas", "PIL", "defusedxml", "orjson", "shapefile"},
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
    "planner": {"torch", "transformers"},
    "evaluate": {
        "numpy",
        "pyarrow",
        "torch",
        "scipy",
        "ray",
        "matplotlib",
        "sacrebleu",
        "rouge_score",
        "markupsafe",
        "jinja2",
    },
    "predict": {"numpy", "pyarrow", "ray", "torch"},
    "inspect": {"numpy", "pyarrow", "matplotlib", "markupsafe"},
    "api": {"pdoc", "numpy", "pyarrow", "torch", "mlflow", "pandas"},
    "doctor": {"torch", "packaging"},
    "exchange": {"pyarrow"},
    "sweep": {
        "numpy",
        "pyarrow",
        "ray",
        "optuna",
        "pandas",
        "matplotlib",
        "pydantic",
        "scipy",
        "tomli_w",
    },
    "cli": set(),
}
MAIN = {"sys", "mmtpp.cli.main"}
PUBLIC = {
    "importlib",
    "typing",
    "mmtpp.api.forecaster",
    "mmtpp.api.sequences",
    "mmtpp.core.events",
    "mmtpp.data.store.images",
    "mmtpp.predict.next_event",
}
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
        assert _imports(path) == commands[layer]
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
        ("mmtpp.sweep.trial", "deepspeed transformers peft matplotlib"),
    ],
)
def test_light_layers_load_nothing_heavy(modules: str, absent: str):
    code = f"import {modules}, sys; print(*sorted(set('{absent}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
