"""Cutting a sequence into windows that fit the context, with image tokens counted beforehand."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.template import NO_FRAME, Events, Template


@dataclass(frozen=True, slots=True)
class Window:
    """Events ``start`` to before ``end`` of one sequence.

    Attributes:
        start, end: event indices within the sequence.
        first_scored: events before it are context only, their tokens carry no label.
        num_tokens: exact length once written, prefix and images included.
    """

    start: int
    end: int
    first_scored: int
    num_tokens: int


def cut_windows(
    events: Events, template: Template, *, max_tokens: int, overlap_fraction: float
) -> list[Window]:
    """Cut a sequence into windows of at most ``max_tokens``; every event is scored exactly once.

    Nothing is ever truncated: a window ends before the event that would not fit. With an overlap
    the next window starts earlier, and the repeated events serve as context without labels. The
    first event of a sequence has no interval and is context as well.

    Args:
        events: the whole sequence with its similar marks.
        template: decides what an event costs.
        max_tokens: the budget of one window.
        overlap_fraction: share of the budget spent on repeated context, 0 to below 1.

    Returns:
        Windows in order, none for fewer than two events.

    Raises:
        ValueError: one event alone exceeds the budget.
    """
    num_events = len(events)
    budget = max_tokens - len(template.prefix)
    inside: list[int] = [0, *np.cumsum(template.costs(events)).tolist()]
    # A window that starts in the middle of a run of equal images must show the image again.
    reshown = _cost_of_showing_again(events, template)
    windows: list[Window] = []
    start, scored = 0, 1
    while scored < num_events:
        extra = int(reshown[start])
        end = bisect_right(inside, inside[start] + budget - extra) - 1
        if end <= scored:
            if start == scored:
                cost = inside[scored + 1] - inside[scored] + extra
                raise ValueError(f"event {scored} takes {cost} tokens, more than {budget}")
            start += 1  # give up context until the next event fits
            continue
        num_tokens = int(template.costs(events.slice(start, end)).sum()) + len(template.prefix)
        windows.append(Window(start, end, scored, num_tokens))
        scored = end
        keep = inside[end] - int(budget * overlap_fraction)
        start = max(start + 1, bisect_left(inside, keep))
        start = min(start, end)
    return windows


def _cost_of_showing_again(events: Events, template: Template) -> NDArray[np.int64]:
    """(E + 1,) extra tokens of a window starting there: its first image, where not shown yet."""
    extra = np.zeros(len(events) + 1, dtype=np.int64)
    if template.images != "on_change":
        return extra
    candidates = np.flatnonzero(~events.similar & (events.frames != NO_FRAME))
    following = np.searchsorted(candidates, np.arange(len(events) + 1))
    reached = following < len(candidates)
    hidden = ~template.shown(events)[candidates]
    extra[reached] = template.image_cost * hidden[following[reached]]
    return extra
