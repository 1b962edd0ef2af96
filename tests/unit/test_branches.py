"""History and branches: each branch equals the row it would make on its own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.branches import BranchedTokens, lay_out_branches
from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.positions import branched_positions, mrope_positions
from mmtpp.core.row import HISTORY
from mmtpp.core.runs import find_runs
from mmtpp.core.template import Template, TemplateSettings
from mmtpp.core.tokens import Modality
from tests.unit.strategies import IDS, events, plain_events
from tests.unit.test_template import settings

QUESTION = {"time": IDS.time_prediction, "type": IDS.type_prediction}


def _alone(template: Template, sequence: Events, target: int, task: str) -> list[int]:
    """The row of one target, written without the layout: its history, its newest event in full."""
    history = sequence.slice(0, target)
    newest, similar, frames = target - 1, history.similar.copy(), history.frames.copy()
    if similar[newest]:
        # the history up to the newest event's run, then the rest of the run and the event in full
        first = newest
        if template.settings.run_encoding == "run_length":
            runs = find_runs(sequence)
            (first,) = runs.first[(runs.first <= newest) & (newest <= runs.last)].tolist()
        before = np.flatnonzero(~similar[:first] & (frames[:first] != NO_FRAME))
        shown = frames[before[-1]] if len(before) else NO_FRAME
        similar[newest] = False
        if template.settings.images == "on_change" and frames[newest] == shown:
            frames[newest] = NO_FRAME
        early = template.write(history.slice(0, first)).ids.tolist()
        rest = replace(history, similar=similar, frames=frames).slice(first, target)
        late = template.write(rest).ids.tolist()[len(template.prefix) :]
        ids = early + late
    else:
        ids = template.write(history).ids.tolist()
    answer = (
        template.time_ids(sequence.intervals[target : target + 1])[0].tolist()
        if task == "time"
        else [1000 + int(sequence.types[target])]
    )
    return [*ids, QUESTION[task], *answer]


def _mask(laid: BranchedTokens) -> np.ndarray:
    """Of the whole row, history first."""
    size = len(laid.tokens.ids)
    of_branches = laid.branches.mask(0, size)
    causal = np.tri(size - len(of_branches), size, dtype=np.bool_)
    return np.concatenate([causal, of_branches])


def _positions(laid: BranchedTokens) -> np.ndarray:
    """As the second segment of a row, after one of plain text that must not matter."""
    ids = np.append([5, 6, 7], laid.tokens.ids)
    segment = np.repeat([0, 1], [3, len(laid.tokens.ids)])
    branches = replace(
        laid.branches,
        branch=np.append([HISTORY] * 3, laid.branches.branch),
        visible=np.append([1, 2, 3], laid.branches.visible),
    )
    positions = branched_positions(ids == IDS.image_pad, segment, branches, image_side=2)
    assert [[0, 1, 2]] * 3 == positions[:, :3].tolist()
    return positions[:, 3:]


@given(settings, events(min_size=2, max_size=12))
def test_a_branch_sees_what_its_row_alone_would_hold(chosen: TemplateSettings, sequence: Events):
    template = Template(IDS, chosen)
    targets = list(range(1, len(sequence)))
    laid = lay_out_branches(template, sequence, targets)
    mask, branch = _mask(laid), laid.branches.branch
    positions = _positions(laid)
    assert [target for target in targets for _ in range(2)] == laid.target.tolist()
    for index, (target, task) in enumerate(zip(laid.target.tolist(), laid.task, strict=True)):
        last = np.flatnonzero(branch == index)[-1]
        seen = np.flatnonzero(mask[last])
        expected = _alone(template, sequence, target, task)
        assert expected == laid.tokens.ids[seen].tolist()
        # every token of the branch sees exactly those before it
        for place in np.flatnonzero(branch == index):
            assert seen[seen <= place].tolist() == np.flatnonzero(mask[place]).tolist()
        row = np.array(expected)
        alone = mrope_positions(row == IDS.image_pad, np.zeros(len(row), np.int32), image_side=2)
        assert alone.tolist() == positions[:, seen].tolist()


@given(settings, events(min_size=2, max_size=12))
def test_the_history_is_causal_and_ignores_the_branches(chosen: TemplateSettings, sequence: Events):
    laid = lay_out_branches(Template(IDS, chosen), sequence, [len(sequence) - 1])
    size = int((laid.branches.branch == HISTORY).sum())
    assert (_mask(laid)[:size] == np.tri(size, len(laid.tokens.ids), dtype=bool)).all()
    assert list(range(1, size + 1)) == laid.branches.visible[:size].tolist()


@given(settings, events(min_size=3, max_size=12), st.data())
def test_answers_frames_and_modalities(chosen: TemplateSettings, sequence: Events, data):
    template = Template(IDS, chosen)
    targets = data.draw(
        st.lists(st.integers(1, len(sequence) - 1), min_size=1, unique=True).map(sorted)
    )
    laid = lay_out_branches(template, sequence, targets, tasks=["type"])
    answers = laid.tokens.ids[laid.is_answer].tolist()
    assert [1000 + int(sequence.types[target]) for target in targets] == answers
    assert (laid.tokens.modality[laid.is_answer] == Modality.TYPE).all()
    assert targets == laid.tokens.event[laid.is_answer].tolist()
    pads = (laid.tokens.ids == IDS.image_pad).sum()
    assert pads == 4 * len(laid.tokens.frames)


def test_the_newest_event_is_there_in_full_though_the_history_compresses_it():
    """Published bug 3: training and prediction compress alike, forward."""
    sequence = replace(plain_events(4), similar=np.array([False, True, True, False]))
    template = Template(
        IDS,
        TemplateSettings(
            "minimal", "none", image_tokens=4, time_bytes=2, run_encoding="run_length"
        ),
    )
    laid = lay_out_branches(template, sequence, [1, 2, 3], tasks=["type"])
    one = [1063, 1128]  # 1.0 is 0x3F80
    kept = [*one, 1000, 8]
    branch = laid.branches.branch
    rows = [laid.tokens.ids[branch == index].tolist() for index in range(3)]
    assert [*kept, 9, 1002, 1064, 1000] == laid.tokens.ids[branch == HISTORY].tolist()
    assert [14, 1000] == rows[0]
    assert [*kept, 14, 1000] == rows[1]
    assert [9, 1001, *one, *kept, 14, 1000] == rows[2]
    assert [4, 4, 4] == [int(laid.branches.visible[branch == index][0]) for index in range(3)]


@pytest.mark.parametrize("targets", [[], [0], [4], [2, 1], [1, 1]])
def test_targets_that_cannot_be_are_refused(targets: list[int]):
    template = Template(IDS, TemplateSettings("minimal", "none", image_tokens=4))
    with pytest.raises(ValueError, match="targets must increase from 1 to at most 3"):
        lay_out_branches(template, plain_events(4), targets)


def test_a_target_type_without_token_is_refused():
    ids = replace(IDS, type_ids=IDS.type_ids[:9])
    template = Template(ids, TemplateSettings("minimal", "none", image_tokens=4))
    events = plain_events(2, types=np.array([0, 9], np.int16))
    with pytest.raises(ValueError, match="type 9: the vocabulary has 9 types"):
        lay_out_branches(template, events, [1])
    assert ("time",) == lay_out_branches(template, events, [1], tasks=["time"]).task


def test_an_unknown_task_is_refused():
    template = Template(IDS, TemplateSettings("minimal", "none", image_tokens=4))
    with pytest.raises(ValueError, match="unknown task 'mood'"):
        lay_out_branches(template, plain_events(4), [1], tasks=["mood"])
