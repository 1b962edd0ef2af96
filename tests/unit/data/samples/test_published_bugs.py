"""Faults of the published scripts that concern the representation, one test for each fault.

The numbers refer to the table in mmtpp/core/README.md. The docstrings of other tests name further
numbers: test_branches (3), test_compression (4), test_qwen_vocabulary (5, 6, 9, 24) and
test_columns (19).
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmtpp.core.errors import DataError
from mmtpp.core.events import Events
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.window import cut_windows
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.model.processor import decode_image
from mmtpp.model.tokens.vocabulary import train_tokenizer
from tests.helpers.steps import encode_shard
from tests.unit.generators import IDS, TEMPLATES, events, plain_events
from tests.unit.token_parser import ParsedEvent, ParsedRun, parse_tokens

PAPER = Template(IDS, TemplateSettings("paper", "per_event", image_tokens=9))


@pytest.mark.parametrize("size", [5, 40, 1500])
def test_bug_2_a_short_sequence_is_not_repeated_until_the_budget_is_full(size: int):
    windows = cut_windows(plain_events(size), PAPER, max_tokens=4096, overlap_fraction=0.0)
    written = [event for window in windows for event in range(window.start, window.end)]
    assert written == list(range(size))


@given(TEMPLATES, events(min_size=2))
def test_bug_8_image_tokens_and_the_prompt_are_no_labels(chosen: TemplateSettings, given_events):
    tokens = Template(IDS, chosen).write(given_events)
    may_be_label = np.ones(len(tokens.ids), np.bool_)
    frames = np.zeros((0, 56, 56, 3), np.uint8)
    row = PackedRow.from_window(tokens, given_events.types, frames, may_be_label=may_be_label)
    labels = row.label_positions()
    assert not (tokens.ids[labels] == IDS.image_pad).any()
    assert (tokens.event[labels] >= 0).all()


@given(TEMPLATES, events(min_size=2), st.integers(60, 120))
def test_bugs_10_and_23_windows_are_whole_and_images_are_counted_once(
    chosen: TemplateSettings, given_events: Events, budget: int
):
    """Nothing is cut after images are expanded, and no budget is wasted on a placeholder."""
    template = Template(IDS, chosen)
    windows = cut_windows(given_events, template, max_tokens=budget, overlap_fraction=0.0)
    # the first event is no target; where the second does not fit beside it, the second is alone
    fits = len(template.write(given_events.slice(0, 2)).ids) <= budget
    assert (windows[0].start, windows[-1].end) == (0 if fits else 1, len(given_events))
    for window in windows:
        part = given_events.slice(window.start, window.end)
        tokens = template.write(part)
        assert len(tokens.ids) == window.num_tokens <= budget
        items = parse_tokens(tokens.ids, template)  # every event and image is complete
        images = sum(item.has_image for item in items if isinstance(item, ParsedEvent))
        runs = sum(item.count for item in items if isinstance(item, ParsedRun))
        assert (len(tokens.frames), int(part.similar.sum())) == (images, runs)
        if window.end < len(given_events):
            longer = template.write(given_events.slice(window.start, window.end + 1))
            assert len(longer.ids) > budget


def _png(side: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (side, side)).save(sink, format="PNG")
    return sink.getvalue()


def test_bug_11_an_event_whose_image_is_unreadable_is_rejected_with_its_placeholder(tmp_path: Path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "good.png").write_bytes(_png(60))
    (raw / "bad.png").write_bytes(_png(60)[:40])
    records = [
        {"time": index, "text": "x", "image_path": f"{name}.png", "type_event": 0}
        for index, name in enumerate(["good", "bad", "good", "missing", "good.png/x", "n" * 300])
    ]
    (raw / "a.json").write_text(json.dumps(records))
    counts = encode_shard(
        str(tmp_path / "out"),
        ["a.json"],
        tokenizer=train_tokenizer(["x"], size=300),
        source_uri=str(raw),
    )
    assert counts["rejected"] == {"unreadable_image": 4}
    (row,) = pq.read_table(tmp_path / "out" / "sequences" / "000000.parquet").to_pylist()
    assert (row["times"], row["frame"]) == ([0.0, 2.0], [0, 0])
    assert len(pq.read_table(tmp_path / "out" / "frames" / "000000-000000.parquet")) == 1
    rejected = pq.read_table(tmp_path / "out" / "rejected" / "000000.parquet").to_pylist()
    assert [record["row"] for record in rejected] == [1, 3, 4, 5]


@pytest.mark.parametrize("key", ["event_type", "type_event"])
@pytest.mark.parametrize("inside", [True, False])
def test_bug_13_either_spelling_of_the_type_is_read(key: str, inside: bool):
    event = {"time": 0.0, "text": "x", "image_path": None}
    event |= {"TPP_attribute": {key: 7}} if inside else {key: 7}
    data = json.dumps([event]).encode()
    (sequence,) = read_file(build_reader("mmtpp"), "a.json", data, types=TypeCodes(())).sequences
    assert sequence.types.tolist() == [7]


def test_bug_21_an_image_that_would_unpack_to_gigabytes_is_refused_unopened():
    with pytest.raises(DataError, match="pixels"):
        decode_image(_png(400), image_px=56, max_pixels=399 * 400)
    assert len(decode_image(_png(400), image_px=56, max_pixels=400 * 400)) == 3 * 56 * 56
