"""All settings with what they mean, take and are without you: ``python -m mmtpp settings``.

Source: the docstrings of the fields, through pydantic's JSON schema.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from mmtpp.config.schema import RunConfig
from mmtpp.config.shapes import Shapes, declared_shapes
from mmtpp.core.errors import ConfigError

_WIDTH = 100
_BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "maxLength": "of at most {} characters",
    "minItems": "of at least {}",
    "maxItems": "of at most {}",
}
_NAMES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "table of texts",
    "array": "list",
}

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        path: as ``--set`` takes it.
        takes: values it may have.
        default: as TOML.
        changes: Results that depend on it: a job with another value makes them anew.
        help: what it does.
    """

    path: str
    takes: str
    default: str
    changes: str
    help: str


def add_arguments(settings: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    settings.description = (
        "Lists the settings of all jobs with their help: those whose path or help has every WORD, "
        "or all. Give them as --set PATH=VALUE, or in a TOML file, where the path's parts are "
        "tables."
    )
    settings.add_argument("words", metavar="WORD", nargs="*", help="training, lora.rank, image …")
    settings.add_argument("--markdown", action="store_true", help="print the page of settings")


def run(options: argparse.Namespace) -> None:
    """Print settings.

    Raises:
        ConfigError: no setting has the words.
    """
    if options.markdown:
        sys.stdout.write(as_markdown())
        return
    found = [each for each in settings() if _has(each, options.words)]
    if not found:
        raise ConfigError(
            f"no setting's path or help has {' and '.join(options.words)}",
            cause="another word for it, or a part of a word",
        )
    sys.stdout.write("\n".join(_as_text(each) for each in found))


def settings() -> list[Setting]:
    """All of them, section by section."""
    schema = RunConfig.model_json_schema()
    return list(_settings(schema, cast("Schema", schema["$defs"]), "", RunConfig()))


def as_markdown() -> str:
    """The page of settings, a table for each section."""
    parts = [
        "# Settings\n",
        "Written by `python -m mmtpp settings --markdown`; `python -m mmtpp settings WORD` finds "
        "one. Give them as `--set path=value`, or in a TOML file, where the path's parts are "
        "tables; `--set` wins over the file, the file over the default. The column *changes* names "
        "the results that a setting shapes: with another value the job makes them anew; with "
        "`nothing`, what is there is found again.\n",
    ]
    schema = RunConfig.model_json_schema()
    for section, field in cast("dict[str, Schema]", schema["properties"]).items():
        about = _section_of(field, schema["$defs"])["description"]
        parts += [f"## {section}\n", f"{_in_one_line(about)}\n"]
        parts += ["| setting | takes | default | changes | |", "|---|---|---|---|---|"]
        for each in settings():
            if each.path.startswith(f"{section}."):
                cells = (
                    f"`{each.path}`",
                    each.takes,
                    f"`{each.default}`",
                    each.changes,
                    each.help,
                )
                parts.append(
                    f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
                )
        parts.append("")
    return "\n".join(parts).replace("``", "`")


def _settings(
    schema: Schema, sections: dict[str, Schema], prefix: str, defaults: object
) -> Iterator[Setting]:
    for name, field in cast("dict[str, Schema]", schema["properties"]).items():
        path, default = f"{prefix}{name}", getattr(defaults, name)
        if "$ref" in field:
            yield from _settings(_section_of(field, sections), sections, f"{path}.", default)
        else:
            about = _in_one_line(field.get("description", ""))
            yield Setting(path, _takes(field), _as_toml(default), _changes(path), about)


@cache
def _declared() -> dict[str, frozenset[Shapes]]:
    return dict(declared_shapes(RunConfig))


def _changes(path: str) -> str:
    """Results that a setting shapes, in the order in which jobs make them."""
    shapes = _declared()[path]
    return ", ".join(each.value for each in Shapes if each in shapes)


def _section_of(field: Schema, sections: dict[str, Schema]) -> Schema:
    return sections[cast(str, field["$ref"]).rpartition("/")[2]]


def _takes(field: Schema) -> str:
    if "anyOf" in field:
        return " or ".join(_takes(each) for each in cast("list[Schema]", field["anyOf"]))
    if "enum" in field:
        return ", ".join(str(each) for each in cast("list[object]", field["enum"]))
    if "const" in field:
        return str(field["const"])
    name = _NAMES[field["type"]]
    if name == "list":
        name = f"list of {_NAMES[field['items']['type']]}s"
    bounds = [text.format(field[key]) for key, text in _BOUNDS.items() if key in field]
    return " ".join([name, *bounds])


def _as_toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return json.dumps(list(cast("Sequence[object]", value)))
    return json.dumps(value)  # TOML writes the other values as JSON does


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _has(setting: Setting, words: Sequence[str]) -> bool:
    text = f"{setting.path} {setting.help}".lower()
    return all(word.lower() in text for word in words)


def _as_text(setting: Setting) -> str:
    head = f"{setting.path} = {setting.default}"
    about = f"{setting.help} Changes: {setting.changes}."
    body = textwrap.wrap(about.replace("``", ""), _WIDTH - 4)
    return "\n".join([f"{head:50} {setting.takes}", *(f"    {line}" for line in body), ""])
