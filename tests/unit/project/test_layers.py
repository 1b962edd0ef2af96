"""The direction of imports between packages, as a table.

Lazy imports count, and so does dynamic loading: a module that is named in a string.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = "mmtpp"
INTERNAL = {
    "core": set(),
    "config": {"core"},
    "storage": {"core"},
    "track": {"core", "config", "storage", "api.mlflow_model"},
    "compat": set(),
    "pages": set(),
    "runtime": {"core", "config", "compat"},
    "model": {"core", "config", "storage", "compat"},
    "experiments": {"config"},
    "data": {
        "core",
        "config",
        "storage",
        "runtime",
        "model.processor",
        "model.tokens.vocabulary",
        "model.folders.folder",
    },
    "expert": {
        "core",
        "data",
        "model.folders.description",
        "model.folders.folder",
        "model.folders.record",
    },
    "soft": {"core", "data", "model", "expert"},
    "train": {
        "core",
        "config",
        "storage",
        "runtime",
        "track",
        "model",
        "expert",
        "soft",
        "data",
        "experiments",
        "compat",
    },
    "planner": {"core", "config", "model", "train", "experiments", "compat"},
    "inference": {"core", "config", "storage", "model", "expert", "soft", "data"},
    "evaluate": {
        "core",
        "config",
        "storage",
        "runtime",
        "track",
        "model",
        "expert",
        "soft",
        "data",
        "inference",
        "pages",
    },
    "predict": {
        "core",
        "config",
        "storage",
        "runtime",
        "model",
        "expert",
        "soft",
        "data",
        "inference",
    },
    "inspect": {"core", "config", "storage", "model", "data", "pages"},
    "api": {
        "core",
        "config",
        "storage",
        "model",
        "expert",
        "soft",
        "data",
        "inference",
        "predict",
        "",
    },
    "serve": {
        "core",
        "config",
        "track",
        "model.folders",
        "model.tokens",
        "expert",
        "data",
        "predict",
        "api",
    },
    "stream": {"core", "config", "storage", "data", "serve.guards"},
    "doctor": {"core", "storage", "track"},
    "exchange": {"core", "storage", "data", "model.folders.card", "model.processor"},
    "sweep": {
        "core",
        "config",
        "storage",
        "runtime",
        "track",
        "train",
        "evaluate",
        "compat",
    },
    "update": {
        "core",
        "config",
        "storage",
        "runtime",
        "track",
        "model.folders",
        "expert",
        "data",
        "inference",
        "train",
        "evaluate",
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
        "evaluate",
        "predict",
        "api",
        "serve",
        "track.champion",
        "update",
        "stream",
    },
}
THIRD_PARTY = {
    "core": {"numpy", "scipy"},
    "compat": {"ray", "torch", "deepspeed"},
    "config": {"pydantic"},
    "storage": {
        "numpy",
        "pyarrow",
        "huggingface_hub",
        "fsspec",
        "s3fs",
        "obstore",
        "botocore",
        "gcsfs",
        "aiohttp",
        "adlfs",
        "azure",
    },
    "track": {"mlflow", "pandas"},
    "runtime": {"psutil", "ray", "rich"},
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
    "expert": {"numpy", "torch", "safetensors"},
    "soft": {"numpy", "torch", "peft", "transformers", "safetensors"},
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
    "inference": {"numpy", "pyarrow"},
    "evaluate": {
        "numpy",
        "pyarrow",
        "torch",
        "ray",
        "matplotlib",
        "sacrebleu",
        "rouge_score",
        "markupsafe",
    },
    "predict": {"numpy", "pyarrow", "ray", "torch"},
    "pages": {"jinja2", "markupsafe", "matplotlib"},
    "inspect": {"numpy", "matplotlib"},
    "api": {"numpy", "pyarrow", "torch", "mlflow", "pandas"},
    "serve": {"numpy", "fastapi", "orjson", "pydantic", "ray", "torch"},
    "update": {"numpy", "pyarrow"},
    "stream": {"numpy", "pyarrow", "confluent_kafka"},
    "doctor": {"torch", "packaging"},
    "exchange": {"pyarrow", "gguf", "tokenizers", "torch", "transformers"},
    "sweep": {
        "numpy",
        "ray",
        "matplotlib",
        "pydantic",
        "scipy",
        "tomli_w",
    },
    "cli": set(),
}
# Inside a package: the modules and folders that a folder may import. Folders without an entry
# import none. Modules next to the folders use them, except for those that are named here.
FOLDERS = {
    "core": {
        "times": {"errors"},
        "representation": {"errors", "events", "seeds", "times"},
        "past": {"times"},
        "point_processes": {"forecasting", "past", "times"},
        "forecasting": {"representation", "times"},
        "training": {"representation", "seeds"},
    },
    "data": {
        "samples": {"store"},
        "encode": {"from_config", "sources", "store"},
    },
    "model": {
        "folders": {"tokens"},
        "backbones": {"folders", "processor", "tokens"},
        "parameters": {"backbones", "batch", "folders", "tokens"},
        "decoding": {
            "attention",
            "batch",
            "event_model",
            "history_keys",
            "row_forecaster",
            "tokens",
        },
    },
    "evaluate": {
        "scores": {"gated_forecasts"},
        "baselines": {"scores"},
        "actors": {"example", "gated_forecasts", "scores"},
        "kinds": {"actors", "context", "example", "read_examples", "scores"},
        "report": {"example", "scores"},
    },
    "train": {
        "engine": {"optimizer", "ranks"},
        "checkpoints": {"engine", "expert_inputs", "worker_inputs"},
        "launch": {"entry", "expert_inputs", "outcome", "worker_inputs"},
    },
}
MAIN = {"sys", "mmtpp.cli.main"}
PUBLIC = {
    "importlib",
    "typing",
    "mmtpp.api.forecaster",
    "mmtpp.api.sequences",
    "mmtpp.core.events",
    "mmtpp.data.store.images",
    "mmtpp.predict.forecast_result",
}
FILES = sorted((ROOT / PROJECT).rglob("*.py"))
PACKAGES = [path for path in FILES if path.name == "__init__.py"]
MODULE_NAME = re.compile(rf"{PROJECT}(\.\w+)+")
# a string of source code, such as the one that MLflow runs to load a logged model
IMPORT_IN_STRING = re.compile(rf"^(?:from|import) ({PROJECT}(?:\.\w+)+)", re.MULTILINE)
LOADERS = {"__init__.py", "cli/jobs.py", "cli/main.py"}  # files that import a module by a variable


def _exists(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _loads(node: ast.AST) -> bool:
    """Whether a call is ``import_module(...)`` or ``importlib.import_module(...)``."""
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _dynamic_imports(tree: ast.AST) -> Iterator[str]:
    """Names of modules in strings: arguments of ``import_module``, tables, source code.

    A name of two parts counts only if it is a package: ``mmtpp.run`` is a tag in MLflow.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _loads(node) and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if MODULE_NAME.fullmatch(node.value) and (
                node.value.count(".") > 1 or _exists(node.value)
            ):
                yield node.value
            yield from IMPORT_IN_STRING.findall(node.value)


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set(_dynamic_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def _check_imports(layer: str, names: set[str]) -> None:
    for name in names:
        top, _, module = name.partition(".")
        if top == PROJECT:
            within = module.split(".")[0] == layer
            allowed = any(
                module == entry or module.startswith(f"{entry}.") for entry in INTERNAL[layer]
            )
            assert within or allowed, f"{layer} may not import {name}"
            assert _exists(name), f"{layer} imports {name}, which does not exist"
        elif top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY[layer], f"{layer} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_layer_may(path: Path):
    parts = path.relative_to(ROOT / PROJECT).with_suffix("").parts
    if len(parts) == 1:
        commands = {"__init__": PUBLIC, "__main__": MAIN}
        assert _imports(path) == commands[parts[0]]
    else:
        _check_imports(parts[0], _imports(path))


@pytest.mark.parametrize("layer", sorted(INTERNAL))
def test_every_permission_of_a_layer_is_used(layer: str):
    names = set().union(*(_imports(path) for path in (ROOT / PROJECT / layer).rglob("*.py")))
    modules = {name.removeprefix(f"{PROJECT}.") for name in names if name.startswith(PROJECT)}
    allowed = INTERNAL[layer] - {""}  # the project itself
    unused = {
        entry
        for entry in allowed
        if not any(name == entry or name.startswith(f"{entry}.") for name in modules)
    }
    unused |= THIRD_PARTY.get(layer, set()) - {name.partition(".")[0] for name in names}
    assert unused == set()


def _parts_used(package: str) -> dict[str, set[str]]:
    """The folders and modules that each folder and module of a package imports from the package."""
    used: dict[str, set[str]] = {}
    for path in (ROOT / PROJECT / package).rglob("*.py"):
        part = path.relative_to(ROOT / PROJECT / package).with_suffix("").parts[0]
        names = {
            name.split(".")[2]
            for name in _imports(path)
            if name.startswith(f"{PROJECT}.{package}.")
        }
        used.setdefault(part, set()).update(names - {part})
    return used


@pytest.mark.parametrize("package", sorted(INTERNAL))
def test_no_two_parts_of_a_package_import_each_other(package: str):
    parts = _parts_used(package)
    parts.pop("__init__")  # names what users of the package import
    TopologicalSorter(parts).prepare()  # raises CycleError


@pytest.mark.parametrize("package", sorted(INTERNAL))
def test_a_folder_imports_only_what_it_may(package: str):
    folder = ROOT / PROJECT / package
    folders = [path.parent.name for path in folder.glob("*/__init__.py")]
    used = {folder: parts for folder in folders if (parts := _parts_used(package)[folder])}
    assert used == FOLDERS.get(package, {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_tables_of_commands_and_names_load_modules_by_a_variable(path: Path):
    by_variable = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and _loads(node)
        and not isinstance(node.args[0], ast.Constant)
    ]
    assert not by_variable or str(path.relative_to(ROOT / PROJECT)) in LOADERS


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('TABLE = {"evaluate": "mmtpp.train.launch"}', "may not import mmtpp.train.launch"),
        ('import_module("mmtpp.train.launch")', "may not import mmtpp.train.launch"),
        ('importlib.import_module("torch")', "may not import torch"),
        ('CODE = """\nfrom mmtpp.sweep.trial import x\n"""', "may not import mmtpp.sweep.trial"),
        ('TABLE = ["mmtpp.core.no_such_module"]', "does not exist"),
    ],
)
def test_a_wrong_dynamic_import_fails(code: str, message: str):
    names = set(_dynamic_imports(ast.parse(code)))
    with pytest.raises(AssertionError, match=re.escape(message)):
        _check_imports("config", names)


def test_tags_of_mlflow_are_no_imports():
    assert not list(_dynamic_imports(ast.parse('TAGS = {"mmtpp.run": "", "mmtpp.job": ""}')))


def test_no_two_modules_share_a_file_name():
    counts = Counter(path.name for path in FILES if path.stem not in ("__init__", "__main__"))
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_package_says_in_one_sentence_why_it_exists(path: Path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    reason = text.split("\n\n")[0]  # a map of the modules may follow
    assert len(re.findall(r"[.!?](?:\s|$)", reason)) == 1
    assert reason.endswith(".")


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
        (
            "mmtpp.core.representation.template, mmtpp.config.load",
            "torch ray transformers mlflow deepspeed",
        ),
        ("mmtpp.data.prepare", "torch deepspeed transformers mlflow"),
        # the modules that drivers and Ray Train's controller import
        (
            "mmtpp.train.launch, mmtpp.train.entry",
            "torch mlflow deepspeed transformers peft matplotlib",
        ),
        # an expert trains in seconds, so its workers must start fast
        ("mmtpp.train.expert_loop", "deepspeed transformers peft matplotlib mlflow"),
        ("mmtpp.sweep.trial", "deepspeed transformers peft matplotlib"),
    ],
)
def test_light_layers_load_nothing_heavy(modules: str, absent: str):
    code = f"import {modules}, sys; print(*sorted(set('{absent}'.split()) & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""
