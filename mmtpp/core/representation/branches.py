"""History and branches: one row in which every event is a target.

The history of a window is written once. Short branches with a question and its answer follow, for
every target. A branch sees the history before its target and the branches that it continues, and
its positions continue there. So one forward pass answers all targets; the published code needs one
pass per target.

    history ─┬─ newest event ─┬─ when? ─┬─ time ─┬─ which type then? type          joint
             │                │         │        └─ [image] text                   text
             │                │         ├─ one token per expected first byte      first bytes
             │                │         └─ ...
             │                └─ which type? type                                  type
             └─ the next target

A branch always sees the newest event before its target in full. If the history has this event
compressed, the branch does not see the compressed form, but begins with a recap: the run up to the
newest event, and then the event itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.representation.row import HISTORY, Branches, QuestionColumns
from mmtpp.core.representation.similar_runs import find_similar_runs
from mmtpp.core.representation.tasks import EVENT_TASKS, HISTORY_TASK, TASKS
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.tokens import Modality, Tokens

NO_EXPANSION = -1
_TASKS_AFTER_TIME = {"time", "joint", "text"}  # their branches begin with the question of the time


@dataclass(frozen=True, slots=True)
class BranchedTokens:
    """A history and its branches as tokens.

    Attributes:
        tokens: The history, then the branches one after another. ``event`` of a token is the event
            that the token describes: in a branch first the newest event, then the target.
        branches: Branch of every token, and the tokens that it may see.
        questions: Questions of the window; ``event`` is the index within the window.
        is_answer: (T,) bool, True at tokens that are predicted.
    """

    tokens: Tokens
    branches: Branches
    questions: QuestionColumns
    is_answer: NDArray[np.bool_]


def lay_out_branches(
    template: Template,
    events: Events,
    targets: Sequence[int],
    *,
    tasks: Sequence[str],
    first_bytes: Sequence[int] = (),
) -> BranchedTokens:
    """Write a window with branches for every target and task.

    Args:
        template: Template of the window.
        events: E events of the window with their similar marks.
        targets: Event indices, increasing, from 1. The index E is the event after the last one:
            its questions have no answers, and the tasks that need an answer are omitted.
        tasks: Names of tasks, among ``EVENT_TASKS``.
        first_bytes: First bytes of time codes. Each becomes a token after the time question, which
            predicts the second byte. With them no answer to a type question is written: a
            forecast reads only the last token of the question.

    Returns:
        The layout. Its history ends with the event before the last target.

    Raises:
        ValueError: A target or a task is not valid.
    """
    wanted = np.asarray(targets, dtype=np.int64)
    if not len(wanted) or wanted[0] < 1 or wanted[-1] > len(events) or (np.diff(wanted) < 1).any():
        raise ValueError(f"targets must increase from 1 to at most {len(events)}")
    for task in tasks:
        if task not in EVENT_TASKS:
            raise ValueError(f"unknown task {task!r}; one of {', '.join(EVENT_TASKS)}")
    known = wanted[wanted < len(events)]
    num_types = len(template.ids.type_ids)
    if {"type", "joint"} & set(tasks) and (events.types[known] >= num_types).any():
        raise ValueError(f"type {events.types[known].max()}: the vocabulary has {num_types} types")
    history = template.write(events.slice(0, int(wanted[-1])))
    writer = _BranchWriter(template, events, history, set(tasks), tuple(first_bytes))
    for target in wanted.tolist():
        writer.write_target(target)
    return writer.build()


def lay_out_questions(
    template: Template, events: Events, questions: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> BranchedTokens:
    """Write a window with a branch for every question in words.

    Args:
        template: Template of the window.
        events: E events of the window with their similar marks, at least one.
        questions: Token ids of each question and of its answer.

    Returns:
        The layout. The whole window is history, and ``event`` of a question is the last event.
    """
    writer = _BranchWriter(template, events, template.write(events), {"qa"}, ())
    for question, answer in questions:
        writer.write_question(question, answer)
    return writer.build()


def question_cost(template: Template, question: Sequence[int], answer: Sequence[int]) -> int:
    """Number of tokens in the branch of a question in words."""
    return len(question) + len(answer) + len(template.layout.turn) + 3


def branch_costs(template: Template, events: Events, *, tasks: Sequence[str]) -> NDArray[np.int64]:
    """(E + 1,) maximum number of tokens in the branches of each event, without expansions.

    The last number is for the event that follows the sequence. Its questions have no answers, so
    this number is only an upper bound. The number of any other event is exact if the event before
    it is not compressed. ``_BranchWriter`` writes the same branches: change both together.
    ``tests/unit/core/representation/test_branches.py`` compares them.

    Args:
        template: Template of the window.
        events: E events with their similar marks.
        tasks: Names of tasks, among ``EVENT_TASKS``.
    """
    layout, time_bytes, wanted = template.layout, template.settings.time_bytes, set(tasks)
    turn, close = len(layout.turn), len(layout.answer_close)
    shows = (events.frames != NO_FRAME) & (template.settings.images != "none")
    image = template.image_cost * shows
    cost = np.zeros(len(events) + 1, dtype=np.int64)
    if wanted & _TASKS_AFTER_TIME:
        cost += 1 + turn + time_bytes + close
    for task in ("type", "joint"):
        cost += (1 + turn + 1 + close) * (task in wanted)
    if "text" in wanted:
        cost[:-1] += 2 + turn + image + np.diff(events.text_offsets)
    uncompressed = replace(events, similar=np.zeros(len(events), dtype=np.bool_))
    in_full = template.costs(uncompressed) + image
    if template.settings.run_encoding == "run_length":
        in_full += template.similar_cost
    cost[1:] += np.where(events.similar, in_full, 0)
    return cost


class _Question(NamedTuple):
    """One question, as in ``QuestionColumns``."""

    at: int
    event: int
    task: int
    expansion: int


class _TokenGroup(NamedTuple):
    """The properties of consecutive tokens of one branch, as in ``Branches``."""

    num_tokens: int
    branch: int
    parent: int
    visible: int
    event: int
    modality: int
    task: int
    is_answer: bool


class _BranchWriter:
    """Writes the branches of one target after another.

    Args:
        template: Template of the window.
        events: E events of the window.
        history: Tokens of the history.
        tasks: Names of the tasks that are asked.
        first_bytes: First bytes of time codes that follow a time question.
    """

    def __init__(
        self,
        template: Template,
        events: Events,
        history: Tokens,
        tasks: set[str],
        first_bytes: tuple[int, ...],
    ) -> None:
        self._template, self._events, self._history = template, events, history
        self._tasks, self._first_bytes = tasks, first_bytes
        self._recaps = _Recaps(template, events)
        self._codes = template.time_ids(events.intervals).tolist()
        self._types = events.types
        self._frames = [history.frames]
        # of all tokens after the history
        self._ids: list[int] = []
        self._groups: list[_TokenGroup] = []
        self._questions: list[_Question] = []
        self._num_branches = 0
        # of the branch that is being written
        self._parent = HISTORY
        self._visible = 0

    def write_target(self, target: int) -> None:
        """Write the questions about one event."""
        ids, layout = self._template.ids, self._template.layout
        first_hidden, recap = self._recaps.before(target)
        self._visible = int(np.searchsorted(self._history.event, first_hidden, side="left"))
        root = HISTORY
        if recap is not None:
            root = self._start_branch(HISTORY)
            for token, event in zip(recap.ids.tolist(), recap.event.tolist(), strict=True):
                self._add((token,), event)
            self._frames.append(recap.frames)
        if self._tasks & _TASKS_AFTER_TIME:
            asked = self._start_branch(root)
            expansion = len(self._history.ids) + len(self._ids) + 1 + len(layout.turn)
            self._ask(
                "time",
                ids.time_prediction,
                target,
                expansion if self._first_bytes else NO_EXPANSION,
            )
            if "time" in self._tasks:
                for byte in self._first_bytes:
                    self._start_branch(asked)
                    self._add((ids.byte_ids[byte],), target)
            if target < len(self._events):
                answered = self._start_branch(asked)
                self._answer("time", self._codes[target], Modality.TIME, target)
                self._write_after_time(answered, target)
        if "type" in self._tasks:
            self._ask_type("type", root, target)

    def write_question(self, question: Sequence[int], answer: Sequence[int]) -> None:
        """Write a question in words about the whole history."""
        ids, last = self._template.ids, len(self._events) - 1
        self._visible = len(self._history.ids)
        self._start_branch(HISTORY)
        # no event begins with this marker, so a question cannot be confused with an event
        self._add((ids.text_start, *question), last)
        self._ask("qa", ids.text_end, last)
        self._answer("qa", [*answer], Modality.TEXT, last)
        self._answer("qa", [ids.text_end], Modality.CONTROL, last)

    def _write_after_time(self, answered: int, target: int) -> None:
        if "joint" in self._tasks:
            self._ask_type("joint", answered, target)
        if "text" not in self._tasks:
            return
        self._start_branch(answered)
        frame = self._events.frames[target : target + 1]
        if frame[0] != NO_FRAME and self._template.settings.images != "none":
            self._add(self._template.image_ids, target)
            self._frames.append(frame)
        self._ask("text", self._template.ids.text_start, target)
        start, end = self._events.text_offsets[target : target + 2].tolist()
        self._answer("text", self._events.text_ids[start:end].tolist(), Modality.TEXT, target)
        self._answer("text", [self._template.ids.text_end], Modality.CONTROL, target)

    def _ask_type(self, task: str, parent: int, target: int) -> None:
        self._start_branch(parent)
        self._ask(task, self._template.ids.type_prediction, target)
        if target < len(self._events) and not self._first_bytes:
            answer = self._template.ids.type_ids[int(self._types[target])]
            self._answer(task, [answer], Modality.TYPE, target)

    def _start_branch(self, parent: int) -> int:
        """Start a branch and return its number."""
        self._parent = parent
        self._num_branches += 1
        return self._num_branches - 1

    def _ask(self, task: str, marker: int, target: int, expansion: int = NO_EXPANSION) -> None:
        self._add((marker, *self._template.layout.turn), target)
        if task in self._tasks:
            at = len(self._history.ids) + len(self._ids) - 1
            self._questions.append(_Question(at, target, TASKS[task], expansion))

    def _answer(self, task: str, ids: list[int], modality: Modality, target: int) -> None:
        """Add an answer, and what closes it; a text and its end are not closed."""
        is_asked = task in self._tasks
        self._add(ids, target, modality, TASKS[task], is_answer=is_asked)
        if modality not in (Modality.TEXT, Modality.CONTROL):
            end = self._template.layout.answer_close
            self._add(end, target, Modality.CONTROL, TASKS[task], is_answer=is_asked)

    def _add(
        self,
        ids: Sequence[int],
        event: int,
        modality: Modality = Modality.MASKED,
        task: int = HISTORY_TASK,
        *,
        is_answer: bool = False,
    ) -> None:
        """Add tokens to the present branch."""
        self._ids += ids
        self._groups.append(
            _TokenGroup(
                len(ids),
                self._num_branches - 1,
                self._parent,
                self._visible,
                event,
                modality,
                task,
                is_answer,
            )
        )

    def build(self) -> BranchedTokens:
        """The layout of the history and all branches so far."""
        history, size = self._history, len(self._history.ids)
        lengths, *properties = _columns(self._groups, num_columns=len(_TokenGroup._fields))
        branch, parent, visible, event, modality, task, is_answer = (
            np.repeat(values, lengths) for values in properties
        )
        at, asked_event, asked_task, expansion = _columns(
            self._questions, num_columns=len(_Question._fields)
        )
        no_branch = np.full(size, HISTORY, dtype=np.int32)
        up_to_itself = np.arange(1, size + 1, dtype=np.int32)
        no_task = np.full(size, HISTORY_TASK, dtype=np.int32)
        no_answer = np.zeros(size, dtype=np.bool_)
        return BranchedTokens(
            tokens=Tokens(
                ids=np.append(history.ids, np.array(self._ids, dtype=np.int32)),
                modality=np.append(history.modality, modality.astype(np.uint8)),
                event=np.append(history.event, event),
                frames=np.concatenate(self._frames),
            ),
            branches=Branches(
                branch=np.append(no_branch, branch),
                parent=np.append(no_branch, parent),
                visible=np.append(up_to_itself, visible),
                task=np.append(no_task, task).astype(np.uint8),
            ),
            questions=QuestionColumns(at, asked_event, asked_task.astype(np.uint8), expansion),
            is_answer=np.append(no_answer, is_answer.astype(np.bool_)),
        )


def _columns(rows: Sequence[tuple[int, ...]], *, num_columns: int) -> NDArray[np.int32]:
    """(num_columns, R) values of R rows; several times faster than ``np.array(rows).T``."""
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32).reshape(-1, num_columns).T


class _Recaps:
    """The tokens that a branch repeats in full because the history has them compressed."""

    def __init__(self, template: Template, events: Events) -> None:
        self._template = template
        self._events = events
        self._run_start = np.arange(len(events))  # first event of the event's run
        if template.settings.run_encoding == "run_length":
            runs = find_similar_runs(events)
            for first, last in zip(runs.first.tolist(), runs.last.tolist(), strict=True):
                self._run_start[first : last + 1] = first
        shown = np.where(~events.similar & (events.frames != NO_FRAME), np.arange(len(events)), -1)
        self._last_shown = np.maximum.accumulate(shown)  # event with the most recent shown image

    def before(self, target: int) -> tuple[int, Tokens | None]:
        """The recap before a target.

        Returns:
            The first event that the branch must not see in the history, and the tokens that replace
            it; None if the newest event is not compressed.
        """
        events, newest = self._events, target - 1
        if not events.similar[newest]:
            return target, None
        first = int(self._run_start[newest])
        part = events.slice(first, newest + 1)
        similar, frames = part.similar.copy(), part.frames.copy()
        similar[-1] = False
        shown = int(self._last_shown[newest])
        is_unchanged = shown >= 0 and events.frames[shown] == frames[-1]
        if self._template.settings.images == "on_change" and is_unchanged:
            frames[-1] = NO_FRAME
        written = self._template.write(replace(part, similar=similar, frames=frames))
        inside = written.event >= 0
        tokens = Tokens(
            written.ids[inside],
            written.modality[inside],
            written.event[inside] + np.int32(first),
            written.frames,
        )
        return first, tokens
