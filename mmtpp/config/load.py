"""Loading the configuration: TOML file, then ``--set section.key=value``; all faults at once."""

import argparse
import difflib
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a job was called with."""

    config: RunConfig
    dry_run: bool


def parse_arguments(description: str, argv: Sequence[str] | None = None) -> Arguments:
    """Read the three options every job has.

    Raises:
        ConfigError: the file or a setting is wrong; lists every fault.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog="A setting is taken from --set, else from the file, else from its default in "
        "mmtpp/config/schema.py.",
    )
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help="settings as TOML")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one setting; VALUE is a TOML literal or a bare string; may be repeated",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved settings and stop"
    )
    options = parser.parse_args(argv)
    return Arguments(load_config(options.config, options.set), options.dry_run)


def load_config(path: Path | None, assignments: Sequence[str] = ()) -> RunConfig:
    """Build the configuration from a TOML file and ``section.key=value`` assignments.

    Raises:
        ConfigError: unreadable file, malformed assignment, unknown key, value out of range.
    """
    tree: Tree = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(
                "the configuration file cannot be read", where=f"{path}: {error}"
            ) from error
    faults: list[str] = []
    parse_assignments(tree, assignments, faults)
    return config_from_tree(tree, faults)


def parse_assignments(tree: Tree, assignments: Sequence[str], faults: list[str]) -> None:
    """Write ``section.key=value`` assignments into a tree; adds to ``faults`` what cannot be."""
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or "." not in key:
            faults.append(f"--set {assignment}: write it as section.key=value")
            continue
        _assign(tree, key.strip().split("."), _literal(text), faults)


def config_from_tree(tree: Tree, faults: Sequence[str] = ()) -> RunConfig:
    """Validate a nested dict and fill in the defaults that depend on the environment.

    Raises:
        ConfigError: lists ``faults`` and every further one, with suggestions.
    """
    collected = list(faults)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        collected += [_describe(fault, tree) for fault in error.errors()]
        raise ConfigError("the configuration is wrong:\n  " + "\n  ".join(collected)) from None
    if collected:
        raise ConfigError("the configuration is wrong:\n  " + "\n  ".join(collected))
    if not config.tracking.uri:
        uri = (
            os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{Path('mlruns.db').absolute()}"
        )
        config = with_values(config, {"tracking.uri": uri})
    return config


def with_values(config: RunConfig, values: dict[str, object]) -> RunConfig:
    """A copy of the configuration with some settings replaced, keys written ``section.key``.

    Raises:
        ConfigError: an unknown key or a value out of range.
    """
    tree = config.model_dump(mode="python")
    faults: list[str] = []
    for key, value in values.items():
        _assign(tree, key.split("."), value, faults)
    return config_from_tree(tree, faults)


def require(config: RunConfig, *keys: str) -> None:
    """Check that settings a job cannot do without are given.

    Raises:
        ConfigError: names every empty one.
    """
    missing = [key for key in keys if not _value(config, key)]
    if missing:
        raise ConfigError(
            "the configuration is wrong:\n  "
            + "\n  ".join(f"{key}: required by this job and empty" for key in missing)
        )


def _value(config: RunConfig, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _literal(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(tree: Tree, keys: list[str], value: object, faults: list[str]) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.setdefault(key, {}), dict):
            faults.append(f"{'.'.join(keys)}: {key} is a value, not a section")
            return
        tree = tree[key]
    tree[keys[-1]] = value


def _describe(fault: Any, tree: Tree) -> str:
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(path)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    value = fault["input"]
    shown = "" if isinstance(value, dict | BaseModel) else f" = {value!r}"
    # a refused URI may hold a password
    shown = " = (not shown)" if "password" in message else shown
    return f"{key}{shown}: {message}"


def _suggestion(path: list[str]) -> str:
    known = list(_all_keys(RunConfig))
    close = difflib.get_close_matches(".".join(path), known, n=1, cutoff=0.75)
    same_leaf = [key for key in known if key.rpartition(".")[2] == path[-1]]
    found = (close or same_leaf)[:1]
    return f"; did you mean {found[0]}?" if found else ""


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
