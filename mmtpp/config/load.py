"""Loading the configuration from a TOML file and ``--set section.key=value``.

An error lists all faults at once.
"""

import argparse
import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from mmtpp.config import renamed
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError

Tree = dict[str, Any]
SectionT = TypeVar("SectionT", bound=BaseModel)
_SIMILARITY = 0.75  # of names, from which one is suggested for the other


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command-line arguments of a job."""

    config: RunConfig
    dry_run: bool


def parse_arguments(
    description: str, argv: Sequence[str] | None = None, *, prog: str | None = None
) -> Arguments:
    """Parse the three options of every job.

    Args:
        description: Help text of the job.
        argv: Command line; None for that of the process.
        prog: Name of the command in ``--help``; None for that of the process.

    Raises:
        ConfigError: The file or a setting is wrong; the error lists every fault.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="A setting is taken from --set, else from the file, else from its default.\n"
        "mmtpp settings WORD prints settings with their help; jobs/configs has example files.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the lines of an example
        allow_abbrev=False,  # the command to type next repeats the options
    )
    parser.add_argument("--config", metavar="FILE.toml", type=Path, help="TOML file with settings")
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
        ConfigError: The file is unreadable, an assignment is malformed, a key is unknown or a value
            is out of range.
    """
    tree = {} if path is None else read_toml(path)
    faults: list[str] = []
    parse_assignments(tree, assignments, faults)
    return config_from_tree(tree, faults)


def read_toml(path: Path) -> Tree:
    """Read the settings of a file, without checks.

    Raises:
        ConfigError: The file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "the configuration file cannot be read",
            where=str(path),
            cause=_cause_of_unreadable_file(error),
            setting=f"--config = {path}",
        ) from error


def _cause_of_unreadable_file(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"the file does not exist; a relative path starts at {Path.cwd()}"
    if isinstance(error, UnicodeDecodeError):
        return f"the file is not text in UTF-8: {error}"
    if isinstance(error, tomllib.TOMLDecodeError):
        return f"the file is not TOML: {error}"
    return str(error)


def parse_assignments(tree: Tree, assignments: Sequence[str], faults: list[str]) -> None:
    """Write ``section.key=value`` assignments into a tree, and add malformed ones to ``faults``."""
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or "." not in key:
            faults.append(f"--set {assignment}: write it as section.key=value")
            continue
        _assign(tree, key.strip().split("."), _literal(text), faults)


def config_from_tree(tree: Tree, faults: Sequence[str] = ()) -> RunConfig:
    """Validate a nested dict and set the defaults that depend on the environment.

    Args:
        tree: Values of settings by section and key.
        faults: Descriptions of faults from reading the tree.

    Raises:
        ConfigError: There are faults; the error lists all of them, with suggestions.
    """
    collected = list(faults)
    config = section_from_tree(RunConfig, tree, collected)
    if config is None or collected:
        raise ConfigError("the configuration is wrong:\n  " + "\n  ".join(collected))
    if not config.tracking.uri:
        uri = (
            os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{Path('mlruns.db').absolute()}"
        )
        config = with_values(config, {"tracking.uri": uri})
    return config


def section_from_tree(
    kind: type[SectionT], tree: object, faults: list[str], *, prefix: str = ""
) -> SectionT | None:
    """Validate one section of settings.

    Args:
        kind: Class of the section.
        tree: Values of its settings.
        faults: List to which descriptions of faults are added.
        prefix: Path of the section in messages, with a dot at its end.

    Returns:
        The section, or None if there are faults.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults += [line for fault in error.errors() for line in _describe(fault, kind, prefix)]
        return None


def with_values(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """A copy of the configuration with new values.

    Args:
        config: Configuration to copy.
        values: New values by path ``section.key``.

    Raises:
        ConfigError: A key is unknown or a value is out of range.
    """
    tree = config.model_dump(mode="python")
    faults: list[str] = []
    for key, value in values.items():
        _assign(tree, key.split("."), value, faults)
    return config_from_tree(tree, faults)


def require(config: RunConfig, *keys: str) -> None:
    """Check that required settings are not empty.

    Args:
        config: Configuration of the job.
        keys: Paths of the required settings.

    Raises:
        ConfigError: A required setting is empty; the error names every one.
    """
    missing = [key for key in keys if not _value(config, key)]
    if missing:
        raise ConfigError(
            "the configuration is wrong:\n  "
            + "\n  ".join(f"{key}: this job requires it, but it is empty" for key in missing)
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


def _describe(fault: Any, kind: type[BaseModel], prefix: str) -> list[str]:
    path, value = [str(part) for part in fault["loc"]], fault["input"]
    if fault["type"] == "extra_forbidden":
        return _describe_unknown(path, value, kind, prefix)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not path:
        return [message]
    shown = "" if isinstance(value, dict | BaseModel) else f" = {value!r}"
    # a rejected URI may contain a password
    shown = " = (not shown)" if "password" in message else shown
    return [f"{prefix}{'.'.join(path)}{shown}: {message}"]


def _describe_unknown(
    path: list[str], value: object, kind: type[BaseModel], prefix: str
) -> list[str]:
    """Describe an unknown setting, or every setting of a section that was dissolved."""
    key = prefix + ".".join(path)
    if key in renamed.RENAMED:
        return [f"{key}: was renamed to {renamed.RENAMED[key]}"]
    if isinstance(value, dict) and renamed.holds_renamed(key):
        children = cast("Tree", value).items()
        return [
            line
            for name, child in children
            for line in _describe_unknown([*path, name], child, kind, prefix)
        ]
    return [f"{key}: no such key{_suggestion(path, kind, prefix)}"]


def _suggestion(path: list[str], kind: type[BaseModel], prefix: str) -> str:
    """The setting with the closest name, in the typed section if it has one, else in any section.

    Several sections may have a setting of that name; all of them are suggested.
    """
    known = [key.rpartition(".") for key in _all_keys(kind)]
    in_section = [key for key in known if key[0] == ".".join(path[:-1])]
    for keys in (in_section, known):
        names = [name for _, _, name in keys]
        close = difflib.get_close_matches(path[-1], names, n=1, cutoff=_SIMILARITY)
        if close:
            suggestions = [prefix + "".join(key) for key in keys if key[2] == close[0]]
            return f"; did you mean {' or '.join(suggestions)}?"
    return ""


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
