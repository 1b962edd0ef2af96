"""History and branches: a branch sees the same tokens as in a row of its own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.representation.branches import (
    BranchedTokens,
    branch_costs,
    lay_out_branches,
    lay_out_questions,
    question_cost,
)
from mmtpp.core.representation.positions import branched_positions, mrope_positions
from mmtpp.core.representation.row import HISTORY, Branches, PackedRow
from mmtpp.core.representation.similar_runs import find_similar_runs
from mmtpp.core.representation.tasks import EVENT_TASKS, TASKS
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.tokens import Modality
from tests.unit.generators import IDS, TEMPLATES, events, plain_events

ALL = EVENT_TASKS


def _history(template: Template, sequence: Events, target: int) -> list[int]:
    """The tokens before a target, written without the layout, with the newest event in full."""
    history = sequence.slice(0, target)
    newest, similar, frames = target - 1, history.similar.copy(), history.frames.copy()
    if not similar[newest]:
        return template.write(history).ids.tolist()
    # the history up to the newest event's run, then the run up to the event, then the event in full
    first = newest
    if template.settings.run_encoding == "run_length":
        runs = find_similar_runs(sequence)
        (first,) = runs.first[(runs.first <= newest) & (newest <= runs.last)].tolist()
    before = np.flatnonzero(~similar[:first] & (frames[:first] != NO_FRAME))
    shown = frames[before[-1]] if len(before) else NO_FRAME
    similar[newest] = False
    if template.settings.images == "on_change" and frames[newest] == shown:
        frames[newest] = NO_FRAME
    early = template.write(history.slice(0, first)).ids.tolist()
    remaining = replace(history, similar=similar, frames=frames).slice(first, target)
    late = template.write(remaining).ids.tolist()[len(template.prefix) :]
    return early + late


def _alone(template: Template, sequence: Events, target: int, task: str) -> list[int]:
    """The row of one question and its answer, after the drawing in ``branches.py``."""
    is_paper = template.settings.style == "paper"
    turn, close = ([44, 45], [46]) if is_paper else ([], [])
    code = template.time_ids(sequence.intervals[target : target + 1])[0].tolist()
    time = [13, *turn, *code, *close]
    kind = [14, *turn, 1000 + int(sequence.types[target]), *close]
    start, end = sequence.text_offsets[target : target + 2]
    image: list[int] = []
    if sequence.frames[target] != NO_FRAME and template.settings.images != "none":
        image = [*([20] if is_paper else []), 10, 11, 11, 11, 11, 12]
    text = [*image, 7, *turn, *sequence.text_ids[start:end].tolist(), 8]
    asked = {"time": time, "type": kind, "joint": time + kind, "text": time + text}
    return _history(template, sequence, target) + asked[task]


def _mask(laid: BranchedTokens, size: int) -> np.ndarray:
    """The attention mask of the whole row, from its blocks."""
    num_tokens = len(laid.tokens.ids)
    mask = np.tri(num_tokens, dtype=np.bool_)
    history = int((laid.branches.branch == HISTORY).sum())
    mask[history:] = False
    end = history
    for block in laid.branches.blocks(0, num_tokens, size=size):
        assert block.start == end
        end = block.end
        mask[block.start : end, : block.seen] = block.mask[:, : block.seen]
        mask[block.start : end, block.start : end] = block.mask[:, block.seen :]
    assert end == num_tokens
    return mask


def _positions(laid: BranchedTokens) -> np.ndarray:
    """The positions in the second segment of a row; the first segment must not matter."""
    ids = np.append([5, 6, 7], laid.tokens.ids)
    segment = np.repeat([0, 1], [3, len(laid.tokens.ids)])
    plain = [HISTORY] * 3
    branches = Branches(
        branch=np.append(plain, laid.branches.branch),
        parent=np.append(plain, laid.branches.parent),
        visible=np.append([1, 2, 3], laid.branches.visible),
        task=np.append([0, 0, 0], laid.branches.task).astype(np.uint8),
    )
    positions = branched_positions(ids == IDS.image_pad, segment, branches, image_side=2)
    assert positions[:, :3].tolist() == [[0, 1, 2]] * 3
    return positions[:, 3:]


def _row(laid: BranchedTokens) -> PackedRow:
    return PackedRow.from_window(
        laid.tokens,
        np.zeros(0, np.int16),
        np.zeros((0, 56, 56, 3), np.uint8),
        may_be_label=laid.is_answer,
        branches=laid.branches,
        questions=laid.questions,
    )


@given(TEMPLATES, events(min_size=2, max_size=9), st.integers(1, 60))
def test_a_branch_sees_what_its_row_alone_would_hold(
    chosen: TemplateSettings, sequence: Events, size: int
):
    template = Template(IDS, chosen, has_questions=True)
    targets = list(range(1, len(sequence)))
    laid = lay_out_branches(template, sequence, targets, tasks=ALL)
    mask, positions, questions = _mask(laid, size), _positions(laid), laid.questions
    before = _row(laid).predecessors()
    asked = [(target, task) for target in targets for task in ("time", "joint", "text", "type")]
    task_names = {number: name for name, number in TASKS.items()}
    tasks = [task_names[task] for task in questions.task.tolist()]
    assert list(zip(questions.event.tolist(), tasks, strict=True)) == asked
    for at, (target, task) in zip(questions.at.tolist(), asked, strict=True):
        following = np.flatnonzero(
            mask[:, at] & laid.is_answer & (laid.branches.task == TASKS[task])
        )
        last = int(following[-1])
        seen = np.flatnonzero(mask[last])
        expected = _alone(template, sequence, target, task)
        assert laid.tokens.ids[seen].tolist() == expected
        # every token of the branch sees exactly those before it, and is predicted by the last
        for number, place in enumerate(seen.tolist()):
            if place > seen[0]:
                assert before[place] == seen[number - 1]
            if laid.branches.branch[place] != HISTORY:
                assert np.flatnonzero(mask[place]).tolist() == seen[: number + 1].tolist()
        row = np.array(expected)
        alone = mrope_positions(row == IDS.image_pad, np.zeros(len(row), np.int32), image_side=2)
        assert positions[:, seen].tolist() == alone.tolist()


@given(TEMPLATES, events(min_size=2, max_size=9))
def test_costs_are_enough_and_exact_without_compression(chosen: TemplateSettings, sequence: Events):
    template = Template(IDS, chosen, has_questions=True)
    for tasks in (ALL, ("type",), ("time",), ("joint", "text")):
        costs = branch_costs(template, sequence, tasks=tasks)
        for target in range(1, len(sequence)):
            laid = lay_out_branches(template, sequence, [target], tasks=tasks)
            taken = int((laid.branches.branch != HISTORY).sum())
            assert taken <= costs[target]
            if not sequence.similar[target - 1]:
                assert taken == costs[target]


@given(TEMPLATES, events(min_size=2, max_size=9))
def test_forecasts_add_a_token_for_each_first_byte_and_omit_answers_to_type_questions(
    chosen: TemplateSettings, sequence: Events
):
    template = Template(IDS, chosen, has_questions=True)
    for tasks, first_bytes in ((ALL, (63, 64)), (("time",), (0,)), (("joint", "text"), (63,))):
        for target in range(1, len(sequence)):
            trained, forecast = (
                lay_out_branches(template, sequence, [target], tasks=tasks, first_bytes=expanded)
                for expanded in ((), first_bytes)
            )
            about_types = np.isin(trained.branches.task, [TASKS["type"], TASKS["joint"]])
            added = len(first_bytes) if "time" in tasks else 0
            omitted = int((about_types & trained.is_answer).sum())
            assert len(forecast.tokens.ids) == len(trained.tokens.ids) + added - omitted


@given(TEMPLATES, events(min_size=2, max_size=9))
def test_expansions_see_the_question_alone(chosen: TemplateSettings, sequence: Events):
    template = Template(IDS, chosen, has_questions=True)
    targets = list(range(1, len(sequence) + 1))  # the last asks about the event to come
    laid = lay_out_branches(template, sequence, targets, tasks=["time"], first_bytes=[0, 63, 65])
    mask, ids, questions = _mask(laid, 16), laid.tokens.ids, laid.questions
    assert questions.event.tolist() == targets
    assert not laid.is_answer[laid.tokens.event == len(sequence)].any()
    for at, expansion in zip(questions.at.tolist(), questions.expansion.tolist(), strict=True):
        expanded = np.arange(expansion, expansion + 3)
        assert ids[expanded].tolist() == [1000, 1063, 1065]
        assert _row(laid).predecessors()[expanded].tolist() == [at] * 3
        assert not laid.is_answer[expanded].any()
        seen = np.flatnonzero(mask[at])
        for place in expanded.tolist():
            assert np.flatnonzero(mask[place]).tolist() == [*seen.tolist(), place]


@given(TEMPLATES, events(min_size=2, max_size=12))
def test_the_history_is_causal_and_ignores_the_branches(chosen: TemplateSettings, sequence: Events):
    laid = lay_out_branches(Template(IDS, chosen), sequence, [len(sequence) - 1], tasks=ALL)
    size = int((laid.branches.branch == HISTORY).sum())
    assert (_mask(laid, 8)[:size] == np.tri(size, len(laid.tokens.ids), dtype=bool)).all()
    assert laid.branches.visible[:size].tolist() == list(range(1, size + 1))


@given(TEMPLATES, events(min_size=3, max_size=12), st.data())
def test_answers_frames_and_modalities(chosen: TemplateSettings, sequence: Events, data):
    template = Template(IDS, chosen)
    targets = data.draw(
        st.lists(st.integers(1, len(sequence) - 1), min_size=1, unique=True).map(sorted)
    )
    laid = lay_out_branches(template, sequence, targets, tasks=["type", "text"])
    # the time is written for the text; it is neither asked nor answered
    assert set(laid.questions.task.tolist()) == {TASKS["type"], TASKS["text"]}
    answers = laid.is_answer & (laid.tokens.modality == Modality.TYPE)
    expected = [1000 + int(sequence.types[target]) for target in targets]
    assert laid.tokens.ids[answers].tolist() == expected
    assert not (laid.is_answer & (laid.tokens.modality == Modality.TIME)).any()
    assert laid.tokens.event[answers].tolist() == targets
    limits = [sequence.text_offsets[target : target + 2] for target in targets]
    texts = [sequence.text_ids[slice(*limit)] for limit in limits]
    of_text = laid.is_answer & (laid.tokens.modality == Modality.TEXT)
    assert laid.tokens.ids[of_text].tolist() == np.concatenate(texts).tolist()
    pads = (laid.tokens.ids == IDS.image_pad).sum()
    assert pads == 4 * len(laid.tokens.frames)


def test_the_newest_event_is_in_full_even_if_the_history_compresses_it():
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
    rows = [laid.tokens.ids[branch == index].tolist() for index in range(5)]
    assert laid.tokens.ids[branch == HISTORY].tolist() == [*kept, 9, 1002, 1064, 1000]
    assert rows[0] == [14, 1000]
    assert rows[1:3] == [kept, [14, 1000]]
    assert rows[3:] == [[9, 1001, *one, *kept], [14, 1000]]
    parents = [int(laid.branches.parent[branch == index][0]) for index in range(5)]
    assert parents == [HISTORY, HISTORY, 1, HISTORY, 3]
    assert [int(laid.branches.visible[branch == index][0]) for index in range(5)] == [4] * 5


@pytest.mark.parametrize("targets", [[], [0], [5], [2, 1], [1, 1]])
def test_invalid_targets_are_refused(targets: list[int]):
    template = Template(IDS, TemplateSettings("minimal", "none", image_tokens=4))
    with pytest.raises(ValueError, match="targets must increase from 1 to at most 4"):
        lay_out_branches(template, plain_events(4), targets, tasks=["time"])


def test_a_target_type_without_token_is_refused():
    ids = replace(IDS, type_ids=IDS.type_ids[:9])
    template = Template(ids, TemplateSettings("minimal", "none", image_tokens=4))
    events = plain_events(2, types=np.array([0, 9], np.int16))
    with pytest.raises(ValueError, match="type 9: the vocabulary has 9 types"):
        lay_out_branches(template, events, [1], tasks=["type"])
    laid = lay_out_branches(template, events, [1], tasks=["time"])
    assert laid.questions.task.tolist() == [TASKS["time"]]


def test_an_unknown_task_is_refused():
    template = Template(IDS, TemplateSettings("minimal", "none", image_tokens=4))
    with pytest.raises(ValueError, match="unknown task 'mood'"):
        lay_out_branches(template, plain_events(4), [1], tasks=["mood"])


@given(TEMPLATES, events(min_size=1, max_size=9))
def test_the_row_before_a_question_is_its_history_alone(chosen: TemplateSettings, sequence: Events):
    template = Template(IDS, chosen, has_questions=True)
    laid = lay_out_branches(template, sequence, [len(sequence)], tasks=["time"], first_bytes=[63])
    row = replace(_row(laid), image_frame=np.arange(len(laid.tokens.frames)))
    plain = row.before_question(0, image_pad=IDS.image_pad)
    assert plain.input_ids.tolist() == _history(template, sequence, len(sequence))
    # every image belongs to its placeholders
    pads = np.flatnonzero(laid.tokens.ids == IDS.image_pad)
    seen = np.flatnonzero(_mask(laid, 8)[laid.questions.at[0]])
    expected = np.unique(np.flatnonzero(np.isin(pads, seen)) // 4)
    assert plain.image_frame.tolist() == expected.tolist()


@given(TEMPLATES, events(min_size=1, max_size=6), st.integers(1, 40))
def test_a_question_in_words_sees_the_whole_window_and_no_other_question(
    chosen: TemplateSettings, sequence: Events, size: int
):
    template = Template(IDS, chosen, has_questions=True)
    asked = [([301, 302], [303]), ([304], [305, 306])]
    laid = lay_out_questions(template, sequence, asked)
    mask, questions = _mask(laid, size), laid.questions
    turn = [44, 45] if chosen.style == "paper" else []
    history = template.write(sequence).ids.tolist()
    assert questions.task.tolist() == [TASKS["qa"]] * 2
    assert questions.event.tolist() == [len(sequence) - 1] * 2
    extra = 0
    for number, (question, answer) in enumerate(asked):
        alone = [*history, 7, *question, 8, *turn, *answer, 8]
        extra += len(alone) - len(history)
        assert question_cost(template, question, answer) == len(alone) - len(history)
        at = int(questions.at[number])
        last = at + len(answer) + 1
        assert laid.tokens.ids[mask[last]].tolist() == alone
        answered = mask[last] & laid.is_answer
        assert laid.tokens.ids[answered].tolist() == [*answer, 8]
        assert _row(laid).predecessors()[np.flatnonzero(answered)[0]] == at
    assert len(laid.tokens.ids) == len(history) + extra
