"""History and branches: one row in which every event is a target of its own.

The history of a window is laid out once. After it, for every target, come short branches with a
question and its answer; a branch sees the history before its target and what it continues, nothing
else, and its positions go on from there. So one forward pass answers what the published code asks
in as many passes as there are targets.

    history ─┬─ newest event ─┬─ when? ─┬─ time ─┬─ which type then? type          joint
             │                │         │        └─ [image] text                   text
             │                │         ├─ each of the expected first bytes        expansions
             │                │         └─ ...
             │                └─ which type? type                                  type
             └─ the next target

The newest event before a target is always there in full: where the history has it compressed, the
branch does not see it there but begins with it, after the rest of its run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.errors import ConfigError
from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.row import HISTORY, Branches, Questions
from mmtpp.core.run_length import find_runs
from mmtpp.core.template import Template
from mmtpp.core.tokens import Modality, Tokens

HISTORY_TASK = 0
TASKS = {"time": 1, "type": 2, "joint": 3, "text": 4, "qa": 5}
"""Keys that tell the labels of the tasks apart: the time code; the type, from the history alone;
the type when the time is known; the text when time and image are; the answer to a question in words
about the whole sequence."""
EVENT_TASKS = ("time", "type", "joint", "text")
TASK_NAMES = {key: name for name, key in TASKS.items()}


def check_futures(tasks: Sequence[str], *, setting: str, where: str = "") -> None:
    """Check that a model can draw futures: it was trained to answer time, and type or joint.

    Args:
        tasks: Names of the tasks the model was, or will be, trained to answer.
        setting: The setting that asks for futures, with its present value.
        where: Where the model is.

    Raises:
        ConfigError: The model was not trained on these tasks.
    """
    if "time" not in tasks or not {"type", "joint"} & set(tasks):
        raise ConfigError(
            "futures need a model that was trained to answer time, and type or joint",
            where=where,
            cause=f"the model was trained to answer {', '.join(tasks) or 'no task'}; run "
            "jobs/finetune.py with tasks.time, and tasks.type or tasks.joint, above 0",
            setting=setting,
        )


@dataclass(frozen=True, slots=True)
class BranchedTokens:
    """A history and its branches as tokens.

    Attributes:
        tokens: history, then the branches one after the other; ``event`` is the event a token
            tells of, in a branch first the newest, then the target.
        branches: which token belongs to which branch, and what it may see.
        questions: of the window; their ``event`` counts from its first.
        is_answer: (T,) bool, the tokens to be predicted.
    """

    tokens: Tokens
    branches: Branches
    questions: Questions
    is_answer: NDArray[np.bool_]


def lay_out_branches(
    template: Template,
    events: Events,
    targets: Sequence[int],
    *,
    tasks: Sequence[str],
    expansions: Sequence[int] = (),
) -> BranchedTokens:
    """Write a window with branches for every target and task.

    Args:
        template: how events are written.
        events: the window, E events with their similar marks.
        targets: event indices, increasing, from 1. E asks about the event after the last: without
            an answer, and not by the tasks that need one.
        tasks: of ``EVENT_TASKS``.
        expansions: first bytes of time codes; each becomes a token after the time question, from
            which the bytes that may follow it are read. With them the types have no answers: a
            forecast chooses among all types where the question ends.

    Returns:
        The layout. Its history ends with the event before the last target.

    Raises:
        ValueError: a target or task there is not.
    """
    chosen = np.asarray(targets, dtype=np.int64)
    if not len(chosen) or chosen[0] < 1 or chosen[-1] > len(events) or (np.diff(chosen) < 1).any():
        raise ValueError(f"targets must increase from 1 to at most {len(events)}")
    for task in tasks:
        if task not in EVENT_TASKS:
            raise ValueError(f"unknown task {task!r}; one of {', '.join(EVENT_TASKS)}")
    known = chosen[chosen < len(events)]
    num_types = len(template.ids.type_ids)
    if {"type", "joint"} & set(tasks) and (events.types[known] >= num_types).any():
        raise ValueError(f"type {events.types[known].max()}: the vocabulary has {num_types} types")
    history = template.write(events.slice(0, int(chosen[-1])))
    writer = _Writer(template, events, history, set(tasks), tuple(expansions))
    for target in chosen.tolist():
        writer.write(target)
    return writer.laid_out()


def lay_out_questions(
    template: Template, events: Events, questions: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> BranchedTokens:
    """Write a window with a branch for every question in words.

    Args:
        template: how events are written.
        events: the window, E events with their similar marks, at least one.
        questions: tokens of each question and of its answer.

    Returns:
        The layout; all of the window is history. The ``event`` of a question is the last.
    """
    writer = _Writer(template, events, template.write(events), {"qa"}, ())
    for question, answer in questions:
        writer.write_question(question, answer)
    return writer.laid_out()


def question_cost(template: Template, question: Sequence[int], answer: Sequence[int]) -> int:
    """Tokens that the branch of a question in words takes."""
    return len(question) + len(answer) + len(template.layout.turn) + 3


def branch_costs(
    template: Template, events: Events, *, tasks: Sequence[str], expansions: int = 0
) -> NDArray[np.int64]:
    """(E + 1,) tokens that the branches of each event, and of the one after all, take at most.

    Exact where the event before is not compressed, but for the last, which has no answers.
    """
    layout, time_bytes, wanted = template.layout, template.settings.time_bytes, set(tasks)
    turn, close = len(layout.turn), len(layout.answer_close)
    shows = (events.frames != NO_FRAME) & (template.settings.images != "none")
    image = template.image_cost * shows
    cost = np.zeros(len(events) + 1, dtype=np.int64)
    if wanted & {"time", "joint", "text"}:
        cost += 1 + turn + time_bytes + close + (expansions if "time" in wanted else 0)
    for task in ("type", "joint"):
        cost += (1 + turn + (0 if expansions else 1 + close)) * (task in wanted)
    if "text" in wanted:
        cost[:-1] += 2 + turn + image + np.diff(events.text_offsets)
    whole = replace(events, similar=np.zeros(len(events), dtype=np.bool_))
    in_full = template.costs(whole) + image
    if template.settings.run_encoding == "run_length":
        in_full += template.similar_cost
    cost[1:] += np.where(events.similar, in_full, 0)
    return cost


class _Writer:
    """Writes the branches of one target after the other."""

    def __init__(
        self,
        template: Template,
        events: Events,
        history: Tokens,
        tasks: set[str],
        expansions: tuple[int, ...],
    ) -> None:
        self._template, self._events, self._history = template, events, history
        self._tasks, self._expansions = tasks, expansions
        self._recaps = _Recaps(template, events)
        self._codes = template.time_ids(events.intervals).tolist()
        self._types = events.types
        self._frames = [history.frames]
        self._num_branches = 0
        self._parent = self._seen = HISTORY  # of the branch that is being written
        # of every token after the history
        self._ids: list[int] = []
        self._tokens: list[tuple[int, int, int, int, int, int, bool]] = []
        self._questions: list[tuple[int, int, int, int]] = []

    def write(self, target: int) -> None:
        """Write what is asked about one event."""
        ids, layout = self._template.ids, self._template.layout
        first_hidden, recap = self._recaps.before(target)
        self._seen = int(np.searchsorted(self._history.event, first_hidden, side="left"))
        root = HISTORY
        if recap is not None:
            root = self._branch(HISTORY)
            for token, event in zip(recap.ids.tolist(), recap.event.tolist(), strict=True):
                self._add((token,), event)
            self._frames.append(recap.frames)
        if self._tasks & {"time", "joint", "text"}:
            asked = self._branch(root)
            expansion = len(self._history.ids) + len(self._ids) + 1 + len(layout.turn)
            self._ask("time", ids.time_prediction, target, expansion if self._expansions else -1)
            for byte in self._expansions if "time" in self._tasks else ():
                self._branch(asked)
                self._add((ids.byte_ids[byte],), target)
            if target < len(self._events):
                answered = self._branch(asked)
                self._answer("time", self._codes[target], Modality.TIME, target)
                self._after_time(answered, target)
        if "type" in self._tasks:
            self._ask_type("type", root, target)

    def write_question(self, question: Sequence[int], answer: Sequence[int]) -> None:
        """Write a question in words about all of the history."""
        ids, last = self._template.ids, len(self._events) - 1
        self._seen = len(self._history.ids)
        self._branch(HISTORY)
        # no event begins with this marker: what follows is no event
        self._add((ids.text_start, *question), last)
        self._ask("qa", ids.text_end, last)
        self._answer("qa", [*answer], Modality.TEXT, last)
        self._answer("qa", [ids.text_end], Modality.CONTROL, last, close=False)

    def _after_time(self, answered: int, target: int) -> None:
        if "joint" in self._tasks:
            self._ask_type("joint", answered, target)
        if "text" not in self._tasks:
            return
        self._branch(answered)
        frame = self._events.frames[target : target + 1]
        if frame[0] != NO_FRAME and self._template.settings.images != "none":
            self._add(self._template.image_ids, target)
            self._frames.append(frame)
        self._ask("text", self._template.ids.text_start, target)
        start, end = self._events.text_offsets[target : target + 2].tolist()
        self._answer("text", self._events.text_ids[start:end].tolist(), Modality.TEXT, target)
        self._answer("text", [self._template.ids.text_end], Modality.CONTROL, target, close=False)

    def _ask_type(self, task: str, parent: int, target: int) -> None:
        self._branch(parent)
        self._ask(task, self._template.ids.type_prediction, target)
        if target < len(self._events) and not self._expansions:
            answer = self._template.ids.type_ids[int(self._types[target])]
            self._answer(task, [answer], Modality.TYPE, target)

    def _branch(self, parent: int) -> int:
        self._parent = parent
        self._num_branches += 1
        return self._num_branches - 1

    def _ask(self, task: str, marker: int, target: int, expansion: int = -1) -> None:
        self._add((marker, *self._template.layout.turn), target)
        if task in self._tasks:
            at = len(self._history.ids) + len(self._ids) - 1
            self._questions.append((at, target, TASKS[task], expansion))

    def _answer(
        self, task: str, ids: list[int], modality: Modality, target: int, *, close: bool = True
    ) -> None:
        scored = task in self._tasks
        self._add(ids, target, modality, TASKS[task], is_answer=scored)
        if close and modality != Modality.TEXT:
            end = self._template.layout.answer_close
            self._add(end, target, Modality.CONTROL, TASKS[task], is_answer=scored)

    def _add(
        self,
        ids: Sequence[int],
        event: int,
        modality: Modality = Modality.MASKED,
        task: int = HISTORY_TASK,
        *,
        is_answer: bool = False,
    ) -> None:
        self._ids += ids
        branch = self._num_branches - 1
        row = (branch, self._parent, self._seen, event, int(modality), task, is_answer)
        self._tokens += [row] * len(ids)

    def laid_out(self) -> BranchedTokens:
        """Everything written."""
        history, size = self._history, len(self._history.ids)
        columns = np.array(self._tokens, dtype=np.int32).reshape(-1, 7).T
        branch, parent, seen, event, modality, task, is_answer = columns
        asked = np.array(self._questions, dtype=np.int32).reshape(-1, 4).T
        before = np.full(size, HISTORY, dtype=np.int32)
        none = np.zeros(size, dtype=np.int32)
        return BranchedTokens(
            tokens=Tokens(
                np.append(history.ids, np.array(self._ids, dtype=np.int32)),
                np.append(history.modality, modality.astype(np.uint8)),
                np.append(history.event, event),
                np.concatenate(self._frames),
            ),
            branches=Branches(
                branch=np.append(before, branch),
                parent=np.append(before, parent),
                visible=np.append(np.arange(1, size + 1, dtype=np.int32), seen),
                task=np.append(none, task).astype(np.uint8),
            ),
            questions=Questions(asked[0], asked[1], asked[2].astype(np.uint8), asked[3]),
            is_answer=np.append(none, is_answer).astype(np.bool_),
        )


class _Recaps:
    """What a branch must repeat, because the history has it compressed."""

    def __init__(self, template: Template, events: Events) -> None:
        self._template = template
        self._events = events
        self._run_of = np.arange(len(events))  # first event of the run an event is in
        if template.settings.run_encoding == "run_length":
            runs = find_runs(events)
            for first, last in zip(runs.first.tolist(), runs.last.tolist(), strict=True):
                self._run_of[first : last + 1] = first
        kept = np.where(~events.similar & (events.frames != NO_FRAME), np.arange(len(events)), -1)
        self._last_shown = np.maximum.accumulate(kept)  # event whose frame was shown last

    def before(self, target: int) -> tuple[int, Tokens | None]:
        """The first event the branch must not see in the history, and the tokens in its place."""
        events, newest = self._events, target - 1
        if not events.similar[newest]:
            return target, None
        first = int(self._run_of[newest])
        part = events.slice(first, newest + 1)
        similar, frames = part.similar.copy(), part.frames.copy()
        similar[-1] = False
        shown = int(self._last_shown[newest])
        unchanged = shown >= 0 and events.frames[shown] == frames[-1]
        if self._template.settings.images == "on_change" and unchanged:
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
