"""The real data sets of the quality benchmark, with the settings to read them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = "MMTPP_TEST_DATA"


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set.

    Attributes:
        name: Name of the data set.
        settings: Settings of the source, by section.
        has_images: Whether events have images.
        delta: Threshold of temporal compression, in the source's time unit.
        other_deltas: Further thresholds for the paper's ablation.
        max_test: Number of tested sequences, in order of their ids; 0 tests all sequences.
        is_varied: Whether the variants are compared on the set, not only the plain model.
    """

    name: str
    settings: dict[str, Any]
    has_images: bool
    delta: float
    other_deltas: tuple[float, ...] = ()
    max_test: int = 0
    is_varied: bool = True


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
    return {data.name: data for data in sets}
