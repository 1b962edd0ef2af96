"""The real data sets of the quality benchmark and how each is read."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = "MMTPP_TEST_DATA"


@dataclass(frozen=True, slots=True)
class DataSet:
    """One of the data sets.

    Attributes:
        name: of the set.
        settings: of the configuration, by section.
        has_images: its events have images.
        delta: threshold of temporal compression, in the source's unit.
        other_deltas: more of them, for the paper's ablation.
        is_varied: the variants are compared on it, not only the plain model.
        max_test: sequences that are tested, by id; 0 for all.
    """

    name: str
    settings: dict[str, Any]
    has_images: bool
    delta: float
    other_deltas: tuple[float, ...] = ()
    max_test: int = 0
    is_varied: bool = True


def data_sets(work: Path) -> dict[str, DataSet]:
    """All sets there are on this machine.

    Args:
        work: where sources that are built, and the stores, go.
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
    real = Path(os.environ[DATA]).absolute() if DATA in os.environ else None
    if real is None:
        return {data.name: data for data in sets}
    taxi = {
        "kind": "taxi",
        "uri": str(work / "taxi_raw"),
        "taxi": {
            "trips": str(real / "taxi_nyc_yellow_2015_01" / "trips.csv"),
            "zones": str(real / "nyc_map_geometry" / "taxi_zones.shp"),
            "sequence": "zone",
        },
    }
    sets += [
        DataSet(
            "earthquake",
            {"source": {"kind": "easytpp", "uri": str(real / "tpp_earthquake")}},
            has_images=False,
            delta=0.1,
            is_varied=False,  # nothing to compress or to look at
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
    return {data.name: data for data in sets}
