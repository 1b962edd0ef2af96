"""Windows and packing: nothing truncated, every event scored once, budgets exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.packing import pack
from mmtpp.core.template import Events, Template
from mmtpp.core.window import cut_windows
from tests.unit.strategies import IDS, events


@pytest.mark.parametrize("style", ["paper", "minimal"])
@pytest.mark.parametrize("images", ["per_event", "on_change"])
@given(events(min_size=1, max_size=30), st.integers(60, 200), st.sampled_from([0.0, 0.3, 0.5]))
def test_every_event_after_the_first_is_scored_once_within_budget(
    style: str, images: str, sequence: Events, budget: int, overlap: float
):
    template = Template(IDS, style=style, images=images, image_tokens=4)
    windows = cut_windows(sequence, template, max_tokens=budget, overlap_fraction=overlap)
    scored = [event for window in windows for event in range(window.first_scored, window.end)]
    assert list(range(1, len(sequence))) == scored
    for window in windows:
        written = template.write(sequence.slice(window.start, window.end))
        assert window.num_tokens == len(written.ids) <= budget
        assert window.start <= window.first_scored


def test_overlap_gives_later_windows_context():
    size = 40
    sequence = Events(
        time_bytes=np.zeros((size, 4), np.uint8),
        types=np.zeros(size, np.int16),
        text_ids=np.zeros(0, np.int32),
        text_offsets=np.zeros(size + 1, np.int64),
        frames=np.full(size, -1, np.int32),
        similar=np.zeros(size, np.bool_),
    )
    template = Template(IDS, style="minimal", images="none", image_tokens=4)
    windows = cut_windows(sequence, template, max_tokens=60, overlap_fraction=0.5)
    # six tokens an event: ten fit, five of them repeated
    assert [(window.start, window.end, window.first_scored) for window in windows[:3]] == [
        (0, 10, 1),
        (5, 15, 10),
        (10, 20, 15),
    ]


def test_an_event_larger_than_the_budget_is_an_error():
    sequence = Events(
        time_bytes=np.zeros((2, 4), np.uint8),
        types=np.zeros(2, np.int16),
        text_ids=np.zeros(100, np.int32),
        text_offsets=np.array([0, 0, 100]),
        frames=np.full(2, -1, np.int32),
        similar=np.zeros(2, np.bool_),
    )
    template = Template(IDS, style="minimal", images="none", image_tokens=4)
    with pytest.raises(ValueError, match="event 1 takes 106 tokens, more than 64"):
        cut_windows(sequence, template, max_tokens=64, overlap_fraction=0.0)


@given(st.lists(st.integers(1, 100), max_size=200), st.integers(0, 5))
def test_packing_loses_nothing_and_overfills_nothing(lengths: list[int], seed: int):
    samples = pack(lengths, max_tokens=100, seed=seed)
    assert list(range(len(lengths))) == sorted(index for sample in samples for index in sample)
    assert all(sum(lengths[index] for index in sample) <= 100 for sample in samples)
    assert samples == pack(lengths, max_tokens=100, seed=seed)
