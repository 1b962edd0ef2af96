"""Cutting one sequence into the windows that a mode of supervision needs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import branch_costs
from mmtpp.core.representation.supervision import FutureOrigins, Supervision
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.window import (
    Window,
    check_events,
    cut_windows,
    future_origins,
    last_window,
    with_older_events,
)


def cut_sequence(
    events: Events,
    times: NDArray[np.float64],
    *,
    supervision: Supervision,
    template: Template,
    first_target: int,
    max_tokens: int,
    overlap_fraction: float,
    older_tokens: int = 0,
) -> list[Window]:
    """Choose the windows of a sequence.

    Args:
        events: E events with their similar marks.
        times: (E,) times of the events in the source's unit.
        supervision: Decides which windows are needed and how many tokens the questions take.
        template: Decides how many tokens an event takes.
        first_target: Index of the first event that may be a target; earlier events are read only.
        max_tokens: Maximum number of tokens in a window, without its older events.
        overlap_fraction: Part of a window that repeats events of the window before, 0 to below 1.
        older_tokens: Maximum number of tokens of a window's older events, one token each.

    Raises:
        EventTooLongError: An event does not fit.
    """
    if supervision.asks_questions and not supervision.event_tasks:
        return []
    costs = _target_costs(events, supervision, template)
    if supervision.asks_ahead and costs is not None:
        windows = _last_windows(
            events, times, supervision, template, costs, first_target, max_tokens
        )
    else:
        windows = cut_windows(
            events,
            template,
            max_tokens=max_tokens,
            overlap_fraction=overlap_fraction,
            branch_costs=costs,
            first_target=first_target,
        )
    return [with_older_events(window, template, max_tokens=older_tokens) for window in windows]


def _target_costs(
    events: Events, supervision: Supervision, template: Template
) -> NDArray[np.int64] | None:
    """(E + 1,) number of tokens of the branches of each event; None for windows without branches.

    A forecast sees as much history as training does, so its expansions are not counted: its rows
    may be longer than the context.
    """
    if template.is_soft:
        return np.zeros(len(events) + 1, dtype=np.int64)  # every label needs an event before it
    if not supervision.asks_questions:
        return None
    return branch_costs(template, events, tasks=supervision.event_tasks)


def with_targets_from(
    first: int,
    windows: Sequence[Window],
    events: Events,
    *,
    supervision: Supervision,
    template: Template,
) -> list[Window]:
    """The windows that have a target from an event on; their earlier events become history.

    A window has the events that it would have with all its targets, so its targets see the same
    history.

    Args:
        first: Index of the first event that stays a target.
        windows: Result of ``cut_sequence`` for supervision of every event.
        events: The events that were cut.
        supervision: Decides how many tokens the questions take.
        template: Decides how many tokens an event takes.
    """
    costs = _target_costs(events, supervision, template)
    before = np.zeros(len(events) + 1, dtype=np.int64)  # tokens of the branches before each event
    if costs is not None:
        before[1:] = np.cumsum(costs[:-1])
    kept: list[Window] = []
    for window in windows:
        if window.end > first:
            scored = max(first, window.first_scored)
            dropped = int(before[scored] - before[window.first_scored])
            num_tokens = window.num_tokens - dropped
            kept.append(replace(window, first_scored=scored, num_tokens=num_tokens))
    return kept


def _last_windows(
    events: Events,
    times: NDArray[np.float64],
    supervision: Supervision,
    template: Template,
    costs: NDArray[np.int64],
    first_target: int,
    max_tokens: int,
) -> list[Window]:
    """The longest window that ends at the last event, or at each origin of the futures."""
    if len(events) == 0:
        return []
    check_events(events, template, max_tokens=max_tokens)
    ends = [len(events)]
    if isinstance(supervision, FutureOrigins):
        # the first event has no interval: futures follow the second event at the earliest
        ends = future_origins(
            times,
            supervision.num_origins,
            horizon=supervision.horizon,
            first=max(2, first_target),
        )
    return [
        last_window(
            events.slice(0, end),
            template,
            max_tokens=max_tokens,
            question_tokens=int(costs[end]) if end < len(events) else int(costs[-1]),
        )
        for end in ends
    ]
