"""History and branches: one row in which every event is a target of its own.

The history of a window is laid out once. After it, for every target, comes a short branch with a
question and its answer; a branch sees the history before its target and itself, nothing else, and
its positions go on from there. So one forward pass answers what the published code asks in as many
passes as there are targets.

The newest event before a target is always there in full: where the history has it compressed, the
branch does not see it there but begins with it, after the rest of its run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.row import HISTORY, Branches
from mmtpp.core.runs import find_runs
from mmtpp.core.template import Template
from mmtpp.core.tokens import Modality, Tokens

TASKS = ("time", "type")


@dataclass(frozen=True, slots=True)
class BranchedTokens:
    """A history and B branches as tokens.

    Attributes:
        tokens: history, then the branches one after the other; ``event`` is the event a token
            tells of, in a branch first the newest, then the target.
        branches: which token belongs to which branch, and what it may see.
        is_answer: (T,) bool, the tokens to be predicted.
        target: (B,) int32, event each branch asks about.
        task: B task names.
    """

    tokens: Tokens
    branches: Branches
    is_answer: NDArray[np.bool_]
    target: NDArray[np.int32]
    task: tuple[str, ...]


def lay_out_branches(
    template: Template,
    events: Events,
    targets: Sequence[int],
    *,
    tasks: Sequence[str] = TASKS,
) -> BranchedTokens:
    """Write a window with a branch for every target and task.

    Args:
        template: how events are written.
        events: the window with its similar marks.
        targets: event indices, increasing, from 1.
        tasks: ``time`` asks for the time code, ``type`` for the type token.

    Returns:
        The layout. Its history ends with the event before the last target.

    Raises:
        ValueError: a target or task there is not.
    """
    chosen = np.asarray(targets, dtype=np.int32)
    if not len(chosen) or chosen[0] < 1 or chosen[-1] >= len(events) or (np.diff(chosen) < 1).any():
        raise ValueError(f"targets must increase from 1 to at most {len(events) - 1}")
    num_types = len(template.ids.type_ids)
    if "type" in tasks and (events.types[chosen] >= num_types).any():
        raise ValueError(f"type {events.types[chosen].max()}: the vocabulary has {num_types} types")
    history = template.write(events.slice(0, int(chosen[-1])))
    recaps = _Recaps(template, events)
    answers: dict[str, list[list[int]]] = {
        "time": template.time_ids(events.intervals[chosen]).tolist(),
        "type": [[template.ids.type_ids[code]] for code in events.types[chosen] if "type" in tasks],
    }
    questions = {
        "time": (template.ids.time_prediction, Modality.TIME),
        "type": (template.ids.type_prediction, Modality.TYPE),
    }
    parts, frames = [history], [history.frames]
    visible: list[int] = []
    lengths: list[int] = []
    task_names: list[str] = []
    is_answer = [np.zeros(len(history.ids), dtype=np.bool_)]
    for index, target in enumerate(chosen.tolist()):
        first_hidden, recap = recaps.before(target)
        seen = int(np.searchsorted(history.event, first_hidden, side="left"))
        for task in tasks:
            if task not in questions:
                raise ValueError(f"unknown task {task!r}; one of {', '.join(TASKS)}")
            marker, modality = questions[task]
            answer = answers[task][index]
            parts += [recap, _question(marker, modality, answer, target)]
            frames.append(recap.frames)
            length = len(recap.ids) + 1 + len(answer)
            is_answer.append(np.arange(length) > len(recap.ids))
            visible.append(seen)
            lengths.append(length)
            task_names.append(task)
    num_history = len(history.ids)
    return BranchedTokens(
        tokens=Tokens(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.modality for part in parts]),
            np.concatenate([part.event for part in parts]),
            np.concatenate(frames),
        ),
        branches=Branches(
            np.repeat(np.arange(HISTORY, len(lengths), dtype=np.int32), [num_history, *lengths]),
            np.append(np.arange(1, num_history + 1), np.repeat(visible, lengths)).astype(np.int32),
        ),
        is_answer=np.concatenate(is_answer),
        target=np.repeat(chosen, len(tasks)),
        task=tuple(task_names),
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

    def before(self, target: int) -> tuple[int, Tokens]:
        """The first event the branch must not see in the history, and the tokens in its place."""
        events, newest = self._events, target - 1
        if not events.similar[newest]:
            return target, _without_prefix(self._template.write(events.slice(0, 0)), 0)
        first = int(self._run_of[newest])
        part = events.slice(first, newest + 1)
        similar, frames = part.similar.copy(), part.frames.copy()
        similar[-1] = False
        shown = int(self._last_shown[newest])
        unchanged = shown >= 0 and events.frames[shown] == frames[-1]
        if self._template.settings.images == "on_change" and unchanged:
            frames[-1] = NO_FRAME
        written = self._template.write(replace(part, similar=similar, frames=frames))
        return first, _without_prefix(written, first)


def _without_prefix(tokens: Tokens, first_event: int) -> Tokens:
    inside = tokens.event >= 0
    return Tokens(
        tokens.ids[inside],
        tokens.modality[inside],
        tokens.event[inside] + np.int32(first_event),
        tokens.frames,
    )


def _question(marker: int, modality: Modality, answer: list[int], target: int) -> Tokens:
    size = 1 + len(answer)
    return Tokens(
        np.array([marker, *answer], dtype=np.int32),
        np.array([Modality.CONTROL] + [modality] * len(answer), dtype=np.uint8),
        np.full(size, target, dtype=np.int32),
        np.zeros(0, dtype=np.int32),
    )
