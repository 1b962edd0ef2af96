"""Soft tokens of a store: the memory of windows in any order, and the rows of training and API."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmtpp.api.soft_history import read_soft_history
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.core.errors import ConfigError
from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.supervision import AllTokens, FollowingEvent
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.past_memory import PastMemory
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.sources.columns import Columns
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.manifests import sample_manifest
from tests.helpers.steps import encode_shard

NUM_EVENTS = 10_000  # three parts of the store
TOKENIZER = train_tokenizer(["some words of text"], size=300)
VOCABULARY = Vocabulary(TOKENIZER)
TIMES = np.cumsum(np.random.default_rng(0).integers(0, 9, NUM_EVENTS)).astype(np.float64)
TEXTS = [f"word {place}" for place in range(NUM_EVENTS)]
SETTINGS = {
    "compression": {"strategy": "none"},
    "template": {"style": "soft", "images": "none", "max_text_tokens": 3},
    "window": {"max_tokens": 3000},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    folder = tmp_path_factory.mktemp("soft")
    (folder / "raw").mkdir()
    lines = [f"s,{time},{text}" for time, text in zip(TIMES, TEXTS, strict=True)]
    (folder / "raw" / "events.csv").write_text("\n".join(["s,t,x", *lines]) + "\n")
    encode_shard(
        str(folder / "store"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(folder / "raw"),
        source_kind="columns",
        columns=Columns(time="t", sequence="s", text="x"),
    )
    return StoreSettings(str(folder / "store"), "x" * 64, 56)


@pytest.fixture(scope="module")
def whole(store: StoreSettings) -> tuple[MemorySettings, np.ndarray]:
    """The memory of the whole sequence, computed at once."""
    reader = StoreReader(store)
    [sequence] = list(reader.sequences(reader.files()))
    lengths = np.diff(sequence.events.text_offsets)
    past = PastEvents.from_sequence(sequence.times, sequence.events.types, lengths)
    settings = MemorySettings.fit(past, tick=1.0, seconds_per_unit=1.0)
    return settings, memory_rows(settings, past)[0]


def test_memory_does_not_depend_on_the_order_of_windows(
    store: StoreSettings, whole: tuple[MemorySettings, np.ndarray]
):
    settings, expected = whole
    reader = StoreReader(store)
    [sequence] = list(reader.sequences(reader.files()))
    memory = PastMemory(settings, reader)
    for start, end in ((9000, 10_000), (0, 5), (4000, 8200), (8192, 8193), (4096, 4100)):
        rows = memory.rows(sequence.address, start, end)
        np.testing.assert_allclose(rows, expected[start:end], rtol=1e-5, atol=1e-5)


def _samples(store: StoreSettings, memory: MemorySettings, **more: Any):
    manifest = sample_manifest()
    config = with_values(config_from_tree(SETTINGS), {"store.uri": store.data_uri})
    samples = build_sample_settings(config.sample_sections, manifest, **more)
    return replace(samples, memory=memory)


def _rows(samples):
    ids = VOCABULARY.token_ids()
    plan = make_plan(samples, ids)
    table = Assembler(samples, ids)(samples_table(plan, np.arange(plan.num_samples)))
    return [row_from_arrow(table, index, image_px=56) for index in range(len(table))]


def test_every_event_after_the_first_is_a_label_once(
    store: StoreSettings, whole: tuple[MemorySettings, np.ndarray]
):
    settings, expected = whole
    rows = _rows(_samples(store, settings, split="all", supervision=AllTokens()))
    assert sum(len(row.label_positions()) for row in rows) == NUM_EVENTS - 1
    assert max(len(row.input_ids) for row in rows) <= 3000
    first = min(rows, key=lambda row: float(row.soft.memory[0, 3]))  # number of events before
    np.testing.assert_allclose(
        first.soft.memory, expected[: len(first.soft.memory)], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(first.soft.intervals[1:10], np.diff(TIMES[:10]))


def test_the_row_of_the_api_is_that_of_predict(
    store: StoreSettings, whole: tuple[MemorySettings, np.ndarray]
):
    settings, _ = whole
    [row] = _rows(_samples(store, settings, split="all", supervision=FollowingEvent(())))
    sequence = EventSequence(
        "s", TIMES, np.zeros(NUM_EVENTS, np.int16), tuple(TEXTS), (None,) * NUM_EVENTS
    )
    config = config_from_tree(SETTINGS)
    history = read_soft_history(sequence, config, VOCABULARY, settings, seconds_per_unit=1.0)
    assert len(row.label_positions()) == 0
    assert len(history.row.input_ids) == 3000
    np.testing.assert_array_equal(history.row.input_ids, row.input_ids)
    assert row.soft is not None
    assert history.row.soft is not None
    for name in ("memory", "intervals", "text_ids", "text_offsets", "has_image"):
        ours, theirs = getattr(history.row.soft, name), getattr(row.soft, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.diff(row.soft.text_offsets).max() == 3  # template.max_text_tokens


def test_a_compressed_event_is_no_soft_token(store: StoreSettings):
    changed = with_values(config_from_tree(SETTINGS), {"compression.strategy": "temporal"})
    manifest = sample_manifest()
    with pytest.raises(ConfigError, match="not compressed"):
        build_sample_settings(changed.sample_sections, manifest, split="train")
