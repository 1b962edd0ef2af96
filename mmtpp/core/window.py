"""Cutting a sequence into windows that fit the context, with image tokens counted beforehand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events
from mmtpp.core.template import Restart, Template


class EventTooLongError(ValueError):
    """An event that does not fit the context.

    Args:
        event: its index.
        tokens: that it takes, with what is asked about it.
        budget: tokens that there are for it.
    """

    def __init__(self, event: int, tokens: int, budget: int) -> None:
        self.event, self.tokens, self.budget = event, tokens, budget
        super().__init__(f"event {event} takes {tokens} tokens, more than {budget}")


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


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Times at or after ``start`` and before ``end``, in the source's unit."""

    start: float
    end: float

    def of(self, times: NDArray[np.float64]) -> tuple[int, int]:
        """The first event in the range and the one after the last, of (E,) ordered times.

        Events outside are left out before intervals are compressed; the interval of the first
        event inside still counts from its real predecessor.
        """
        if len(times) and self.start <= times[0] and times[-1] < self.end:
            return 0, len(times)
        first, last = np.searchsorted(times, [self.start, self.end], side="left")
        return int(first), int(last)


def cut_windows(
    events: Events,
    template: Template,
    *,
    max_tokens: int,
    overlap_fraction: float,
    branch_costs: NDArray[np.int64] | None = None,
    first_target: int = 0,
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
        branch_costs: (E + 1,) tokens that scoring each event takes besides (``core.branches``); a
            scored event then has at least one before it in its window.
        first_target: events before it are only the past of those that are scored, and the first
            window holds as much of them as ``overlap_fraction`` says.

    Returns:
        Windows in order, none for fewer than two events. With branches their tokens are counted,
        and the last event's own, which the history leaves out.

    Raises:
        EventTooLongError: one event alone exceeds the budget.
    """
    num_events = len(events)
    budget = max_tokens - len(template.prefix)
    inside = np.append(0, np.cumsum(template.costs(events)))
    asked = np.zeros(num_events + 1, dtype=np.int64)
    if branch_costs is not None:
        asked[1:] = np.cumsum(branch_costs[:-1])
    together = inside + asked
    context = 0 if branch_costs is None else 1
    restart = template.restart(events)
    # a run of more than MAX_COUNT, cut at both ends, may take one more token than these say
    is_exact = template.settings.run_encoding == "token"

    def cost(start: int, end: int) -> int:
        if not is_exact:
            return _cost(events, template, start, end)
        shows_again = restart.image_at[start] < end
        return int(inside[end] - inside[start] + restart.image[start] * shows_again)

    windows: list[Window] = []
    start, scored = 0, max(1, first_target)
    if scored < num_events and first_target > 1:
        keep = int(inside[scored]) - int(budget * overlap_fraction)
        start = min(int(np.searchsorted(inside, max(keep, 0), side="left")), scored - context)
    while scored < num_events:
        before = int(asked[scored] - asked[start])  # of events that are context here
        end = int(_ends(restart, together, budget + before, start))
        num_tokens = cost(start, end) + int(asked[end]) - int(asked[scored])
        while end > scored and num_tokens > budget:
            end -= 1
            num_tokens = cost(start, end) + int(asked[end]) - int(asked[scored])
        if end <= scored:
            if start >= scored - context:
                tokens = _cost(events, template, start, scored + 1)
                tokens += int(asked[scored + 1] - asked[scored])
                raise EventTooLongError(scored, tokens, budget)
            start += 1  # give up context until the next event fits
            continue
        windows.append(Window(start, end, scored, num_tokens + len(template.prefix)))
        scored = end
        keep = int(inside[end]) - int(budget * overlap_fraction)
        start = max(start + 1, int(np.searchsorted(inside, keep, side="left")))
        start = min(start, end - context)
    return windows


def last_window(
    events: Events, template: Template, *, max_tokens: int, question_tokens: int
) -> Window:
    """The longest window at the end of a sequence that leaves room for a question about what comes.

    Args:
        events: the whole sequence with its similar marks, at least one event.
        template: decides what an event costs.
        max_tokens: the budget of the window and the question.
        question_tokens: of the question, and of the newest event where that is compressed.

    Returns:
        A window without scored events.

    Raises:
        EventTooLongError: the last event alone does not fit.
    """
    num_events = len(events)
    budget = max_tokens - len(template.prefix) - question_tokens
    costs = template.costs(events)
    start = num_events - int(np.searchsorted(np.cumsum(costs[::-1]), budget, side="right"))
    while start < num_events and _cost(events, template, start, num_events) > budget:
        start += 1  # an image that is shown again, or a run that is cut
    if start == num_events:
        tokens = _cost(events, template, num_events - 1, num_events)
        raise EventTooLongError(num_events - 1, tokens, budget)
    tokens = _cost(events, template, start, num_events) + question_tokens + len(template.prefix)
    return Window(start, num_events, num_events, tokens)


def check_events(events: Events, template: Template, *, max_tokens: int) -> None:
    """Check that every event fits a window of its own, unless it is written as a similar event.

    ``last_window`` would end before an event that does not, and leave out all that came earlier.

    Raises:
        EventTooLongError: the first that does not.
    """
    tokens = np.where(events.similar, 0, template.alone(events))
    if (tokens > max_tokens).any():
        event = int(np.argmax(tokens > max_tokens))
        size = len(template.prefix)
        raise EventTooLongError(event, int(tokens[event]) - size, max_tokens - size)


def origins(times: NDArray[np.float64], count: int, *, horizon: float, first: int) -> list[int]:
    """After how many events of a sequence futures begin, evenly spaced.

    Args:
        times: (E,) not decreasing, at least one.
        count: number of origins, fewer where there is no room.
        horizon: length of a future, in the unit of ``times``; the sequence holds all of it.
        first: number of events before the first origin, at least.
    """
    end = int(np.searchsorted(times, float(times[-1]) - horizon, side="right"))
    step = (end - first) / max(1, count - 1)
    found = sorted({round(first + place * step) for place in range(count)})
    return [events for events in found if first <= events <= end]


def events_that_fit(events: Events, template: Template, *, max_tokens: int) -> NDArray[np.int64]:
    """How many events a context holds.

    Args:
        events: a whole sequence with its similar marks.
        template: decides what an event costs.
        max_tokens: the context.

    Returns:
        One count for every start from which the sequence fills the context, in order.
    """
    inside = np.append(0, np.cumsum(template.costs(events)))
    starts = np.arange(len(events))
    ends = _ends(template.restart(events), inside, max_tokens - len(template.prefix), starts)
    counts = ends - starts
    return counts[ends < len(events)]


def _ends(
    restart: Restart, inside: NDArray[np.int64], budget: int, starts: NDArray[np.int64] | int
) -> NDArray[np.int64]:
    """Where a window of at most ``budget`` tokens ends, for each event that it starts at."""
    # the method: numpy's function takes twice as long for one start
    find = cast("Callable[..., NDArray[np.int64]]", inside.searchsorted)
    limits = inside[starts] + budget - restart.run[starts]
    image_at = np.asarray(restart.image_at[starts], dtype=np.int64)
    without = find(limits, side="right") - 1
    with_image = find(limits - restart.image[starts], side="right") - 1
    # a window may also end before the event that would have to show its image again
    return np.where(image_at >= without, without, np.maximum(with_image, image_at))


def _cost(events: Events, template: Template, start: int, end: int) -> int:
    return int(template.costs(events.slice(start, end)).sum())
