"""``mmtpp settings``: list all settings with their help, values and defaults.

The help is the docstring of the field, from pydantic's JSON schema.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from mmtpp.config.affects import Affects, declared_affects
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError

_WIDTH = 100
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "minItems": "length at least {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "maxItems": "length at most {}",
}
_NAMES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "table of texts",
    "array": "list",
}

CHANGES = {
    Affects.STORE: "The event store that `prepare` writes.",
    Affects.PLAN: "The samples of training, validation and evaluation: which events they contain, "
    "and how they are written.",
    Affects.RUN: "The trained weights, and the choice of the best model.",
    Affects.FINETUNE: "The trained weights of `finetune` only.",
    Affects.UPDATE: "The trained weights of `update` only.",
    Affects.PREQUENTIAL: "The trained weights and scores of `prequential` only.",
    Affects.STEPS: "The number of updates. A run with a `run.name` continues if the number grows.",
    Affects.EVALUATION: "The scores and the generated texts of `evaluate`.",
    Affects.PREDICTION: "The forecasts of `predict`.",
    Affects.NOTHING: "No result: the setting is a name or a location, or concerns speed or "
    "failures.",
}

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        path: Path of the setting, as in ``--set``.
        takes: Description of the valid values.
        default: Default, as TOML.
        changes: Results that depend on the setting, keys of ``CHANGES``.
        help: Description of the setting.
    """

    path: str
    takes: str
    default: str
    changes: str
    help: str


def add_arguments(settings: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    settings.description = (
        "Lists the settings of all jobs with their help; with words, only settings whose path or "
        "help has every WORD. Set a setting with --set PATH=VALUE, or in a TOML file, where the "
        "parts of the path are tables."
    )
    changes = "; ".join(
        f"{shape}: {_lower_first(about)}".replace("`", "").removesuffix(".")
        for shape, about in CHANGES.items()
    )
    settings.epilog = (
        '"Changes" lists the results that depend on a setting. A job with another value computes '
        f"these results again. {changes}."
    )
    settings.add_argument("words", metavar="WORD", nargs="*", help="training, lora.rank, image …")
    settings.add_argument("--markdown", action="store_true", help="print all settings as Markdown")


def run(options: argparse.Namespace) -> None:
    """Print settings.

    Raises:
        ConfigError: No setting has all the words.
    """
    if options.markdown:
        sys.stdout.write(as_markdown())
        return
    matches = [setting for setting in settings() if _has_words(setting, options.words)]
    if not matches:
        raise ConfigError(
            f"no setting has {' and '.join(options.words)} in its path or help",
            cause="the setting uses another word; try a synonym or a part of the word. Metrics are "
            "in mmtpp/evaluate/README.md",
        )
    sys.stdout.write("\n".join(_as_text(setting) for setting in matches))


def settings() -> list[Setting]:
    """Return all settings, section by section."""
    schema = RunConfig.model_json_schema()
    return list(_settings(schema, cast("Schema", schema["$defs"]), "", RunConfig()))


def as_markdown() -> str:
    """Format all settings as a Markdown page with a table for each section."""
    parts = [
        "# Settings\n",
        "This page is written by `mmtpp settings --markdown`; `mmtpp settings WORD` finds a "
        "setting. Set a setting with `--set path=value`, or in a TOML file, where the parts of the "
        "path are tables. `--set` overrides the file, and the file overrides the default.\n",
        "The column *changes* names the results that depend on a setting. A job with another value "
        "computes these results again; all other results are used again.\n",
        "| changes | result that depends on the setting |",
        "|---|---|",
        *(f"| {shape} | {about} |" for shape, about in CHANGES.items()),
        "",
    ]
    schema = RunConfig.model_json_schema()
    for section, field in cast("dict[str, Schema]", schema["properties"]).items():
        about = _section_of(field, schema["$defs"])["description"]
        parts += [f"## {section}\n", f"{_in_one_line(about)}\n"]
        parts += ["| setting | takes | default | changes | description |", "|---|---|---|---|---|"]
        for setting in settings():
            if setting.path.startswith(f"{section}."):
                cells = (
                    f"`{setting.path}`",
                    setting.takes,
                    f"`{setting.default}`",
                    setting.changes,
                    setting.help,
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
def _declared() -> dict[str, frozenset[Affects]]:
    return dict(declared_affects(RunConfig))


def _changes(path: str) -> str:
    """Names of the results that depend on a setting, in the order in which jobs build them."""
    affected = _declared()[path]
    return ", ".join(result.value for result in Affects if result in affected)


def _section_of(field: Schema, sections: dict[str, Schema]) -> Schema:
    return sections[cast(str, field["$ref"]).rpartition("/")[2]]


def _takes(field: Schema) -> str:
    if "anyOf" in field:
        options = cast("list[Schema]", field["anyOf"])
        return " or ".join(_takes(option) for option in options if option.get("type") != "null")
    if "enum" in field:
        return ", ".join(str(value) for value in cast("list[object]", field["enum"]))
    if "const" in field:
        return str(field["const"])
    name = _NAMES[field["type"]]
    if name == "list":
        name = f"list of {_NAMES[field['items']['type']]}s"
    limits = " and ".join(text.format(field[key]) for key, text in _BOUNDS.items() if key in field)
    parts = [name, limits]
    if "multipleOf" in field:
        parts.append(f"a multiple of {field['multipleOf']}")
    if "maxLength" in field:
        parts.append(_length(field.get("minLength", 0), field["maxLength"]))
    return ", ".join(filter(None, parts))


def _length(least: int, most: int) -> str:
    characters = "character" if most == 1 else "characters"
    return f"{most} {characters}" if least == most else f"at most {most} {characters}"


def _as_toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return json.dumps(list(cast("Sequence[object]", value)))
    if value is None:
        return "none"
    return json.dumps(value)  # other values are the same in TOML and JSON


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _has_words(setting: Setting, words: Sequence[str]) -> bool:
    text = f"{setting.path} {setting.help}".lower()
    return all(word.lower() in text for word in words)


def _as_text(setting: Setting) -> str:
    head = f"{setting.path} = {setting.default}"
    about = f"{setting.help} Changes: {setting.changes}."
    body = textwrap.wrap(about.replace("``", ""), _WIDTH - 4)
    return "\n".join([f"{head:50} {setting.takes}", *(f"    {line}" for line in body), ""])
