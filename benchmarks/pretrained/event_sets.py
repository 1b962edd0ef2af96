"""The event sets of the benchmark: times, types and texts, without images."""

import csv
import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.pretrained.trial import DATED, NAMED
from benchmarks.quality import run as quality
from benchmarks.quality.little_sets import Draw, Limits, publish_draw
from benchmarks.quality.sets import SPEAKERS, DataSet
from mmtpp.core.seeds import seed_from
from mmtpp.core.split import split_from_key
from mmtpp.data.prepare import prepare

TRANSCRIPTS = "transcripts"
VALIDATION, TEST = 0.1, 0.15
LIMITS = Limits(
    num_training=300,
    num_validation=8,
    max_events=256,
    max_held_out=3,
    max_held_out_events=80,
)
"""Sizes of the sets of the quality benchmark: a training reads few of the sequences."""


@dataclass(frozen=True, slots=True)
class EventSet:
    """Events of one set, or of a share of its training sequences.

    Attributes:
        name: Name of the set.
        fraction: Share of the training sequences, above 0, at most 1.
        templates: Templates that are tried beside the usual one, ``trial.TEMPLATES``.
    """

    name: str
    fraction: float = 1.0
    templates: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """End of the names of the set's folders."""
        share = f"{self.fraction:g}"
        return share if self.name == TRANSCRIPTS else f"{self.name}_{share}"


EVENT_SETS = (
    EventSet(TRANSCRIPTS, templates=(NAMED,)),
    *(EventSet(TRANSCRIPTS, fraction) for fraction in (0.01, 0.1)),
    EventSet("stackoverflow", templates=(NAMED, DATED)),
    *(EventSet(name, templates=(NAMED,)) for name in ("flights", "taxi")),
)
"""All sets, in the order of the trials."""


def find_transcripts(path: Path | None) -> Path:
    """The table of the utterances: ``path``, or the one in ``MMTPP_TEST_DATA``.

    Raises:
        SystemExit: There is no such table.
    """
    folder = Path(os.environ.get("MMTPP_TEST_DATA", ""))
    path = path or folder / "transcripts_spaceflight" / "utterances.csv.gz"
    if not path.is_file():
        raise SystemExit(f"there is no table {path}: set MMTPP_TEST_DATA or --data")
    return path


def event_settings(events: EventSet, transcripts: Path, work: Path) -> dict[str, Any]:
    """Settings of the source and of its splits, after the events are written.

    Args:
        events: The set.
        transcripts: Table of the utterances.
        work: Folder for the events.
    """
    folder = work / f"events_{events.folder}"
    if events.name == TRANSCRIPTS:
        return _utterances(transcripts, folder, events.fraction)
    settings = _drawn(events.name, folder)
    if events.name == "stackoverflow":  # the badge is the text, too
        settings["source"]["columns"]["text"] = "type"
    return settings


def _utterances(table: Path, folder: Path, fraction: float) -> dict[str, Any]:
    write_utterances(table, folder, fraction)
    columns = {"time": "seconds", "sequence": "part", "type": "speaker", "text": "text"}
    return {
        "source": {
            "kind": "columns",
            "uri": str(folder),
            "types": SPEAKERS,
            "rare_types": "other",
            "columns": columns,
        },
        "split": {"validation_fraction": VALIDATION, "test_fraction": TEST},
    }


def write_utterances(table: Path, folder: Path, fraction: float) -> None:
    """Write the table with a share of its training sequences and all held-out ones.

    Args:
        table: Table of ``part``, ``seconds``, ``speaker`` and ``text``, gzipped.
        folder: Folder of the new table; a table that exists is kept.
        fraction: Share of the training sequences. A larger share contains the smaller ones.
    """
    target = folder / "utterances.csv"
    if target.exists():
        return
    with gzip.open(table, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    kept = set(_kept_parts({row[0] for row in rows[1:]}, fraction))
    folder.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if row[0] in kept)])


def _kept_parts(parts: set[str], fraction: float) -> Iterator[str]:
    for part in parts:
        split = split_from_key(part, validation_fraction=VALIDATION, test_fraction=TEST)
        draw = seed_from("fraction", part) % 10**6 / 10**6
        if split == "test" or draw < fraction:
            yield part


def _drawn(name: str, folder: Path) -> dict[str, Any]:
    """Sequences drawn from a set of the quality benchmark."""
    data: DataSet = replace(quality.data_sets(quality.WORK)[name], has_images=False)
    if data.publish:
        data.publish()
    full = quality.configuration(data, quality.BUDGET)
    prepare(full)
    drawn = publish_draw(full.store.uri, Draw(name, 0, limits=LIMITS), folder)
    return dict(drawn.settings)
