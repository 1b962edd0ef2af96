"""``mmtpp inspect``: show the content of a data set before spending GPU time on it."""

import argparse
import json
import sys
from pathlib import Path

from mmtpp.config.load import load_config, with_values
from mmtpp.config.schema import SourceSection
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.data.sources import READERS, kinds_that_read
from mmtpp.data.sources.event_files import suffix_of
from mmtpp.inspect.data_page import as_page
from mmtpp.inspect.dataset import load
from mmtpp.inspect.measure import measure
from mmtpp.inspect.text import as_text

MAX_FILES = 1000


def add_arguments(inspect: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    inspect.epilog = (
        "The settings are those of the jobs, for example the columns of a table, the template, the "
        "context, and model.path for the tokenizer of your model."
    )
    inspect.add_argument("uri", help="raw files or an event store: a local path or a remote URI")
    inspect.add_argument(
        "--kind",
        choices=sorted([*READERS, "columns"]),
        help="kind of the source, source.kind; default: the kind of the settings, or else of the "
        "file's suffix",
    )
    inspect.add_argument("--config", metavar="FILE.toml", type=Path, help="settings as TOML")
    inspect.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one setting; may be repeated",
    )
    inspect.add_argument(
        "--deltas",
        metavar="D,D,...",
        default="",
        type=_numbers,
        help="values of compression.delta to try; default: chosen from the data",
    )
    inspect.add_argument(
        "--max-files",
        type=_count,
        default=MAX_FILES,
        help="maximum number of raw files to read, evenly spaced; 0 reads all files",
    )
    inspect.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    inspect.add_argument(
        "--html", metavar="FILE", type=Path, help="write the report as an HTML page"
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None
    if not all(0 <= value < float("inf") for value in values):
        raise argparse.ArgumentTypeError("a threshold must be finite and at least 0")
    return values


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of files")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Print the report, and write the files that the options name.

    Raises:
        MmtppError: The data cannot be read or measured.
    """
    config = load_config(options.config, options.set)
    kind = options.kind or _infer_kind(options.uri, config.source)
    config = with_values(config, {"source.uri": options.uri, "source.kind": kind})
    data = load(config.source, config.split, config.model, max_files=options.max_files)
    try:
        report = measure(data, config.sample_sections, deltas=options.deltas)
    except ValueError as error:
        raise DataError(
            str(error), where=options.uri, setting=f"window.max_tokens = {config.window.max_tokens}"
        ) from error
    sys.stdout.write(as_text(report) + "\n")
    if options.json:
        _write(options.json, json.dumps(report.as_dict(), indent=2, allow_nan=False))
    if options.html:
        _write(options.html, as_page(report, data, config.sample_sections))


def _infer_kind(uri: str, source: SourceSection) -> str:
    """The kind of the source in the settings, or else the kind that the suffix of a file implies.

    Raises:
        ConfigError: The file is a table, and the settings do not name its column of times.
    """
    suffix = suffix_of(uri)
    kinds = kinds_that_read(suffix)
    if source.kind != SourceSection().kind or not kinds or source.kind in kinds:
        return source.kind
    kind = kinds[0]
    if kind == "columns" and not source.columns.time:
        raise ConfigError(
            "the settings do not name the column of times",
            where=uri,
            cause=f"without --kind, a {suffix} file is read as a table (--kind columns)",
            setting="source.columns.time, which is empty: --set source.columns.time=NAME",
        )
    sys.stderr.write(f"{uri}: read with --kind {kind}, because of its suffix {suffix}\n")
    return kind


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    sys.stderr.write(f"written: {path}\n")
