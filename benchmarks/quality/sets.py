"""The real data sets of the quality benchmark, with the settings to read them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.chess_games import TYPES, publish_games
from benchmarks.quality.converted import badge_names, publish_badges, publish_given_earthquakes

DATA = "MMTPP_TEST_DATA"
# the speakers with at least 40 utterances; the 109 utterances of 19 further speakers are "other"
SPEAKERS = (
    *("CC", "P", "CDR", "C", "LMP", "CMP", "C6", "P6"),
    *("S", "CT", "C7", "F", "P7", "R", "SC"),
)


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set.

    Attributes:
        name: Name of the data set.
        settings: Settings of the source and of its splits, by section.
        has_images: Whether events have images.
        delta: Threshold of temporal compression, in the source's time unit.
        other_deltas: Further thresholds for the paper's ablation.
        max_test: Number of tested sequences, in order of their ids; 0 tests all sequences.
        is_varied: Whether the variants of time codes, templates, compression and targets are
            compared on the set.
        compares_texts: Whether the plain model is also trained without the texts. The set must be
            a table with ``source.columns.text``.
        max_text_tokens: Maximum length of an event's text, in tokens; 0 truncates none.
        publish: Function that writes the raw files, unless they exist; None if they are given.
    """

    name: str
    settings: dict[str, Any]
    has_images: bool
    delta: float
    other_deltas: tuple[float, ...] = ()
    max_test: int = 0
    is_varied: bool = True
    compares_texts: bool = False
    max_text_tokens: int = 0
    publish: Callable[[], None] | None = None


def data_sets(work: Path) -> dict[str, DataSet]:
    """The data sets that are available on this machine.

    Args:
        work: Folder for built sources and for stores.
    """
    sets = [
        DataSet(
            "flights",
            {"source": {"kind": "flights", "uri": str(work / "flights_raw")}},
            has_images=True,
            delta=30.0,
            max_test=60,
        )
    ]
    if DATA in os.environ:
        real = Path(os.environ[DATA]).absolute()
        games = real / "chess_lichess_2017" / "games.jsonl.gz"
        sets += [
            *_sets_without_content(real, work),
            transcripts(real / "transcripts_spaceflight"),
            chess(games, work / "chess_raw"),
            _given_earthquakes(real, work),
        ]
        if (real / "tpp_stackoverflow").is_dir():  # its settings are read from its files
            sets.append(_stackoverflow(real, work))
    return {data.name: data for data in sets}


def _sets_without_content(real: Path, work: Path) -> list[DataSet]:
    """Sets whose texts and images say no more than their types, or that have none."""
    taxi = {
        "kind": "taxi",
        "uri": str(work / "taxi_raw"),
        "taxi": {
            "trips": str(real / "taxi_nyc_yellow_2015_01" / "trips.csv"),
            "zones": str(real / "nyc_map_geometry" / "taxi_zones.shp"),
            "sequence": "zone",
        },
    }
    return [
        DataSet(
            "earthquake",
            {"source": {"kind": "easytpp", "uri": str(real / "tpp_earthquake")}},
            has_images=False,
            delta=0.1,
            is_varied=False,  # few similar events and no images
        ),
        DataSet(
            "danmaku",
            {"source": {"kind": "danmaku", "uri": str(real / "danmaku_bilibili_xml")}},
            has_images=False,
            delta=0.2,
            other_deltas=(0.05, 0.1, 0.5, 1.0),
        ),
        DataSet("taxi", {"source": taxi}, has_images=True, delta=60.0),
    ]


def transcripts(folder: Path) -> DataSet:
    """Utterances of space flights: the text matters, because a long one takes long to say.

    Args:
        folder: Folder with a table of ``part``, ``seconds``, ``speaker`` and ``text``.
    """
    columns = {"time": "seconds", "sequence": "part", "type": "speaker", "text": "text"}
    source = {
        "kind": "columns",
        "uri": str(folder),
        "columns": columns,
        "types": SPEAKERS,
        "rare_types": "other",
    }
    return DataSet(
        "transcripts",
        {"source": source},
        has_images=False,
        delta=1.0,
        is_varied=False,
        compares_texts=True,
        max_text_tokens=128,
    )


def chess(games: Path, raw: Path, *, max_games: int = 0) -> DataSet:
    """Games of chess: the image matters, because the board says which pieces can move.

    Args:
        games: File of games, see ``chess_games.read_game``.
        raw: Folder for the events and the images of the boards.
        max_games: Number of games, in the order of the file; 0 for all games.
    """
    columns = {name: name for name in ("time", "type", "text", "image")}
    source = {
        "kind": "columns",
        "uri": str(raw),
        "columns": {**columns, "sequence": "game", "time_format": "number"},
        "types": TYPES,
    }
    return DataSet(
        "chess",
        {"source": source},
        has_images=True,
        delta=1.0,
        is_varied=False,
        compares_texts=True,
        publish=partial(publish_games, games, raw, max_games=max_games),
    )


def _stackoverflow(real: Path, work: Path) -> DataSet:
    """Badges of Stack Overflow's users; a name of a badge is its type, and there are no texts."""
    folder, target = real / "tpp_stackoverflow", work / "stackoverflow_raw" / "users.jsonl"
    source = {
        "kind": "columns",
        "uri": str(target.parent),
        "columns": {"time": "time", "time_format": "epoch_s", "sequence": "user", "type": "type"},
        "types": tuple(badge_names(folder)),
    }
    return DataSet(
        "stackoverflow",
        {"source": source},
        has_images=False,
        delta=3600.0,
        max_test=200,
        is_varied=False,
        publish=partial(publish_badges, folder, target),
    )


def _given_earthquakes(real: Path, work: Path) -> DataSet:
    """EasyTPP's earthquakes with the splits of its files, see ``publish_given_earthquakes``."""
    target = work / "earthquake_given_raw" / "sequences.jsonl"
    columns = {name: name for name in ("time", "sequence", "type", "split")}
    source = {
        "kind": "columns",
        "uri": str(target.parent),
        "columns": {**columns, "time_format": "number"},
    }
    return DataSet(
        "earthquake_given",
        {"source": source, "split": {"by": "given"}},
        has_images=False,
        delta=0.1,
        is_varied=False,
        publish=partial(publish_given_earthquakes, real / "tpp_earthquake", target),
    )
