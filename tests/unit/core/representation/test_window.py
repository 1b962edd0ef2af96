"""Windows and packing: nothing truncated, every event scored once, budgets exact."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import branch_costs, lay_out_branches
from mmtpp.core.representation.packing import pack
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.window import cut_windows, events_that_fit, last_window
from tests.unit.generators import IDS, TEMPLATES, events, plain_events


@given(
    TEMPLATES,
    events(min_size=1, max_size=30),
    st.integers(60, 200),
    st.sampled_from([0.0, 0.3, 0.5]),
)
def test_every_event_after_the_first_is_scored_once_within_budget(
    chosen: TemplateSettings, sequence: Events, budget: int, overlap: float
):
    template = Template(IDS, chosen)
    windows = cut_windows(sequence, template, max_tokens=budget, overlap_fraction=overlap)
    _check(windows, sequence, template, budget)


@given(
    st.lists(st.integers(200, 600), min_size=1, max_size=4),
    st.integers(64, 90),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_runs_longer_than_a_count_fit_the_budget_too(runs: list[int], budget: int, overlap: float):
    similar = [mark for length in runs for mark in [False] + [True] * length]
    sequence = plain_events(len(similar), similar=np.array(similar))
    template = _minimal(run_encoding="run_length", time_bytes=2)
    windows = cut_windows(sequence, template, max_tokens=budget, overlap_fraction=overlap)
    _check(windows, sequence, template, budget)


def _check(windows, sequence: Events, template: Template, budget: int) -> None:
    scored = [event for window in windows for event in range(window.first_scored, window.end)]
    assert scored == list(range(1, len(sequence)))
    for window in windows:
        written = template.write(sequence.slice(window.start, window.end))
        assert len(written.ids) == window.num_tokens <= budget
        assert window.start <= window.first_scored
        # an image and its placeholders are whole
        pads = (written.ids == IDS.image_pad).sum()
        assert pads == template.settings.image_tokens * len(written.frames)


@given(TEMPLATES, events(min_size=2, max_size=20), st.integers(150, 300), st.floats(0, 0.9))
def test_windows_with_branches_fit_and_ask_about_every_event_once(
    chosen: TemplateSettings, sequence: Events, budget: int, overlap: float
):
    template, tasks = Template(IDS, chosen, has_questions=True), ("time", "joint")
    windows = cut_windows(
        sequence,
        template,
        max_tokens=budget,
        overlap_fraction=overlap,
        branch_costs=branch_costs(template, sequence, tasks=tasks),
    )
    scored = [event for window in windows for event in range(window.first_scored, window.end)]
    assert scored == list(range(1, len(sequence)))
    for window in windows:
        assert window.start < window.first_scored
        targets = range(window.first_scored - window.start, window.end - window.start)
        inside = sequence.slice(window.start, window.end)
        laid = lay_out_branches(template, inside, targets, tasks=tasks)
        assert len(laid.tokens.ids) <= window.num_tokens <= budget


@given(TEMPLATES, events(min_size=2, max_size=16), st.integers(40, 150))
@example(
    TemplateSettings("minimal", "on_change", 4),
    plain_events(
        3,
        frames=np.array([0, -1, 0], np.int32),
        text_ids=np.zeros(58, np.int32),
        text_offsets=np.array([0, 0, 58, 58]),
    ),
    64,
)
def test_the_number_of_events_that_fit_equals_a_plain_search(
    chosen: TemplateSettings, sequence: Events, budget: int
):
    """Search the longest written window from every start. An image that is shown again counts
    only if the window reaches its event."""
    template, size = Template(IDS, chosen), len(sequence)
    expected = []
    for start in range(size):
        lengths = [
            len(template.write(sequence.slice(start, end)).ids) for end in range(start, size + 1)
        ]
        fitting = sum(length <= budget for length in lengths) - 1
        if start + fitting < size:
            expected.append(fitting)
    assert events_that_fit(sequence, template, max_tokens=budget).tolist() == expected


def _minimal(**more: object) -> Template:
    return Template(
        IDS, TemplateSettings(**{"style": "minimal", "images": "none", "image_tokens": 4, **more})
    )


@given(TEMPLATES, events(min_size=1, max_size=20), st.integers(20, 250))
def test_the_last_window_is_the_longest_that_leaves_room_for_a_question(
    chosen: TemplateSettings, sequence: Events, budget: int
):
    template, size = Template(IDS, chosen, has_questions=True), len(sequence)
    question = int(branch_costs(template, sequence, tasks=["time", "type"])[-1])

    def written(start: int) -> int:
        return len(template.write(sequence.slice(start, size)).ids) + question

    if written(size - 1) > budget:
        with pytest.raises(ValueError, match=f"event {size} takes"):
            last_window(sequence, template, max_tokens=budget, question_tokens=question)
        return
    window = last_window(sequence, template, max_tokens=budget, question_tokens=question)
    assert (window.end, window.first_scored) == (size, size)
    assert window.num_tokens == written(window.start) <= budget
    inside = sequence.slice(window.start, size)
    laid = lay_out_branches(template, inside, [len(inside)], tasks=["time", "type"])
    assert len(laid.tokens.ids) <= window.num_tokens
    # one more event does not fit, unless the window then shows one image less or has longer runs
    longer = [written(start) > budget for start in range(window.start)]
    if chosen.images != "on_change" and chosen.run_encoding == "token":
        assert all(longer)


def test_an_overlap_gives_later_windows_earlier_events():
    windows = cut_windows(plain_events(40), _minimal(), max_tokens=60, overlap_fraction=0.5)
    # six tokens per event: ten events fit, five of them repeated
    assert [(window.start, window.end, window.first_scored) for window in windows[:3]] == [
        (0, 10, 1),
        (5, 15, 10),
        (10, 20, 15),
    ]


def test_an_event_larger_than_the_budget_is_an_error():
    sequence = replace(
        plain_events(2), text_ids=np.zeros(100, np.int32), text_offsets=np.array([0, 0, 100])
    )
    with pytest.raises(ValueError, match="event 2 takes 106 tokens, more than 64"):
        cut_windows(sequence, _minimal(), max_tokens=64, overlap_fraction=0.0)


@given(st.lists(st.integers(1, 100), max_size=200), st.integers(0, 5))
def test_packing_loses_nothing_and_overfills_nothing(lengths: list[int], seed: int):
    samples = pack(lengths, max_tokens=100, seed=seed)
    assert sorted(index for sample in samples for index in sample) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in sample) <= 100 for sample in samples)
    again = pack(lengths, max_tokens=100, seed=seed)
    assert [sample.tolist() for sample in again] == [sample.tolist() for sample in samples]
    # no two samples could be one
    filled = sorted(sum(lengths[index] for index in sample) for sample in samples)
    assert len(filled) < 2 or filled[0] + filled[1] > 100


def test_best_fit_puts_a_window_where_it_leaves_least():
    # 60 and 70 open two samples; 30 fills the second exactly, 25 goes to the first
    samples = pack([60, 70, 30, 25], max_tokens=100, seed=0)
    assert sorted(sorted(sample.tolist()) for sample in samples) == [[0, 3], [1, 2]]


def test_a_window_longer_than_a_sample_is_refused():
    with pytest.raises(ValueError, match="window 1 has 101 tokens"):
        pack([5, 101], max_tokens=100, seed=0)


@given(
    TEMPLATES,
    events(min_size=1, max_size=30),
    st.integers(150, 300),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.integers(0, 31),
    st.booleans(),
)
def test_only_events_of_the_split_are_scored_with_earlier_events(
    chosen: TemplateSettings, sequence: Events, budget: int, overlap: float, first: int, asks: bool
):
    template = Template(IDS, chosen, has_questions=asks)
    costs = branch_costs(template, sequence, tasks=("time", "joint")) if asks else None
    windows = cut_windows(
        sequence,
        template,
        max_tokens=budget,
        overlap_fraction=overlap,
        branch_costs=costs,
        first_target=first,
    )
    scored = [event for window in windows for event in range(window.first_scored, window.end)]
    assert scored == list(range(max(1, first), len(sequence)))
    for window in windows:
        assert window.num_tokens <= budget
        assert window.start <= window.first_scored - asks


def test_the_first_window_of_a_split_has_earlier_events_up_to_the_overlap():
    """By hand: a budget of 20 equal events, of which half may be the overlap."""
    sequence = plain_events(40)
    template = _minimal(time_bytes=2)
    cost = int(template.costs(sequence)[5])
    budget = len(template.prefix) + 20 * cost
    [window, *_] = cut_windows(
        sequence, template, max_tokens=budget, overlap_fraction=0.5, first_target=25
    )
    assert (window.start, window.first_scored, window.end) == (15, 25, 35)
    [window, *_] = cut_windows(
        sequence, template, max_tokens=budget, overlap_fraction=0.5, first_target=4
    )
    assert (window.start, window.first_scored, window.end) == (0, 4, 20)
