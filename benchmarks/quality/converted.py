"""Data sets converted to JSON lines before ``prepare`` reads them, one line per sequence."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from mmtpp.core.split import split_from_key
from mmtpp.data.sources.easytpp import parse

VALIDATION_FRACTION = 0.1  # of EasyTPP's training sequences


def write_lines(target: Path, lines: Iterable[dict[str, object]]) -> None:
    """Write a file of JSON lines as a whole, so that an interrupted run leaves no partial file.

    Args:
        target: Path of the file; its folder is created.
        lines: Objects, one per line.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    partial.rename(target)


def badge_names(folder: Path) -> list[str]:
    """Names of Stack Overflow's badges, in the order of their numbers from 1."""
    names = json.loads((folder / "badge_names.json").read_text())
    return [names[str(number)] for number in range(1, len(names) + 1)]


def publish_badges(folder: Path, target: Path) -> None:
    """Write the badges of Stack Overflow's users with their names, unless the file exists.

    Args:
        folder: Folder with ``sequences.jsonl.gz`` (a user a line: ``t`` in seconds since 1970, and
            ``k``, numbers of badges from 1) and ``badge_names.json``.
        target: Written file.
    """
    if target.exists():
        return
    names = badge_names(folder)
    with gzip.open(folder / "sequences.jsonl.gz", "rt", encoding="utf-8") as file:
        users = [json.loads(line) for line in file]
    write_lines(
        target,
        (
            {"user": f"{index:04d}", "time": user["t"], "type": [names[k - 1] for k in user["k"]]}
            for index, user in enumerate(users)
        ),
    )


def publish_given_earthquakes(folder: Path, target: Path) -> None:
    """Write EasyTPP's earthquakes with the splits of its files, unless the file exists.

    Without ``test.pkl``, the development split is the test split, and a stable hash moves a share
    ``VALIDATION_FRACTION`` of the training sequences into the validation split.

    Args:
        folder: Folder with ``train.pkl``, ``dev.pkl`` and perhaps ``test.pkl``.
        target: Written file.

    Raises:
        ValueError: An event cannot be read.
    """
    if target.exists():
        return
    has_test = (folder / "test.pkl").exists()
    sequences: dict[str, dict[str, list[object]]] = {}
    splits: dict[str, str] = {}
    for name in ("train", "dev", "test") if has_test else ("train", "dev"):
        path = folder / f"{name}.pkl"
        for event in parse(path.name, path.read_bytes()):
            if event.problem:
                raise ValueError(f"{path}, sequence {event.sequence}: {event.problem}")
            splits[event.sequence] = name if has_test else _split(name, event.sequence)
            columns = sequences.setdefault(event.sequence, {"time": [], "type": []})
            columns["time"].append(event.time)
            columns["type"].append(event.type)
    write_lines(
        target,
        (
            {"sequence": name, "split": splits[name], **columns}
            for name, columns in sequences.items()
        ),
    )


def _split(file_split: str, sequence: str) -> str:
    """Split of a sequence where the data has no test split."""
    if file_split == "dev":
        return "test"
    return split_from_key(sequence, validation_fraction=VALIDATION_FRACTION, test_fraction=0.0)
