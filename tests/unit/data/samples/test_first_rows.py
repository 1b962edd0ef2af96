"""The first rows of a feed are assembled in this process, the later ones by Ray tasks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from mmtpp.config.load import config_from_tree
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.samples import feed
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.feed import iter_rows
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.manifests import sample_manifest
from tests.helpers.steps import encode_shard

TOKENIZER = train_tokenizer(["some words of text"], size=300)
IDS = Vocabulary(TOKENIZER).token_ids()
NUM_SEQUENCES = 20
SETTINGS = {
    "compression": {"strategy": "none"},
    "template": {"style": "dense", "images": "none", "time_bytes": 2},
    "window": {"max_tokens": 64},
}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, SampleSettings]:
    """Plan of a store of sequences with different texts, a sample each."""
    folder: Path = tmp_path_factory.mktemp("rows")
    (folder / "raw").mkdir()
    lines = [f"s{name:02d},{time},some {name}" for name in range(NUM_SEQUENCES) for time in (1, 4)]
    (folder / "raw" / "events.csv").write_text("\n".join(["s,t,x", *lines]) + "\n")
    encode_shard(
        str(folder / "store"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(folder / "raw"),
        source_kind="columns",
        columns=Columns(time="t", sequence="s", text="x"),
    )
    config = config_from_tree({**SETTINGS, "store": {"uri": str(folder / "store")}})
    settings = build_sample_settings(
        config.sample_sections, sample_manifest(tick=1.0), split="train"
    )
    return make_plan(settings, IDS), settings


@pytest.fixture
def later_chunks(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Samples that Ray tasks would assemble."""
    chunks: list[list[int]] = []

    def assemble(plan: Plan, ids: np.ndarray, *arguments: Any) -> Iterator[pa.Table]:
        chunks.append(ids.tolist())
        return feed._start_here(plan, ids, *arguments)

    monkeypatch.setattr(feed, "_start_task", assemble)
    return chunks


def test_the_first_rows_need_no_ray(planned: Any, later_chunks: list[list[int]], monkeypatch):
    plan, settings = planned
    monkeypatch.setattr(feed, "FIRST_CHUNK", 3)
    monkeypatch.setattr(feed, "CHUNK", 4)
    samples = np.arange(plan.num_samples)[::-1]
    rows = list(iter_rows(plan, samples, settings, IDS))
    assert [row.sample_id for row in rows] == samples.tolist()
    assert not ray.is_initialized()
    assert later_chunks[0] == samples[3:7].tolist()
    table = Assembler(settings, IDS)(samples_table(plan, samples[:3]))
    for index, row in enumerate(rows[:3]):
        expected = row_from_arrow(table, index, image_px=settings.image_px)
        assert row.input_ids.tolist() == expected.input_ids.tolist()


def test_machines_with_labels_read_the_first_rows_too(
    planned: Any, later_chunks: list[list[int]], monkeypatch: pytest.MonkeyPatch
):
    plan, settings = planned
    monkeypatch.setattr(feed, "FIRST_CHUNK", 3)
    store = replace(settings.store, machine_labels=(("role", "data"),))
    rows = iter_rows(plan, np.arange(5), replace(settings, store=store), IDS)
    assert [row.sample_id for row in rows] == [0, 1, 2, 3, 4]
    assert later_chunks == [[0, 1, 2], [3, 4]]


def test_a_feed_without_samples_is_empty(planned: Any, later_chunks: list[list[int]]):
    plan, settings = planned
    assert list(iter_rows(plan, np.arange(0), settings, IDS)) == []
    assert later_chunks == []
