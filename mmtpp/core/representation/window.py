"""Cutting a sequence into windows that fit the context, with image tokens counted beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events
from mmtpp.core.representation.template import RestartCosts, Template


class EventTooLongError(ValueError):
    """An event that does not fit the context.

    Args:
        event: Index of the event, from 0; the message counts from 1.
        tokens: Number of tokens of the event and of its questions.
        budget: Number of tokens that are available.
    """

    def __init__(self, event: int, tokens: int, budget: int) -> None:
        self.event, self.tokens, self.budget = event, tokens, budget
        super().__init__(f"event {event + 1} takes {tokens} tokens, more than {budget}")


@dataclass(frozen=True, slots=True)
class Window:
    """Events ``start`` to before ``end`` of one sequence.

    Attributes:
        start, end: Event indices within the sequence.
        first_scored: Index of the first scored event. Earlier events are the overlap: their tokens
            are read and carry no label.
        num_tokens: Exact number of tokens, prefix and images included.
        num_older: Number of its first events that are one token each, see ``with_older_events``.
    """

    start: int
    end: int
    first_scored: int
    num_tokens: int
    num_older: int = 0


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Times at or after ``start`` and before ``end``, in the source's unit; None sets no bound."""

    start: float | None = None
    end: float | None = None

    def event_range(self, times: NDArray[np.float64]) -> tuple[int, int]:
        """The events inside the range: the index of the first, and the index after the last.

        Events outside are removed before intervals are compressed. The interval of the first event
        inside still begins at its true predecessor.

        Args:
            times: (E,) times, not decreasing.
        """
        first, last = 0, len(times)
        if self.start is not None:
            first = int(np.searchsorted(times, self.start, side="left"))
        if self.end is not None:
            last = int(np.searchsorted(times, self.end, side="left"))
        return first, last


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

    Nothing is truncated: a window ends before the event that would not fit. With an overlap the
    next window starts earlier, and the repeated events are read without labels. The first event of
    a sequence has no interval, so it is not scored either.

    Args:
        events: The whole sequence with its similar marks.
        template: Template that determines the number of tokens of an event.
        max_tokens: Maximum length of a window, in tokens.
        overlap_fraction: Maximum share of a window that the overlap takes, 0 to below 1.
        branch_costs: (E + 1,) number of tokens of the branches of each event (``branches.py``).
            With branches, every scored event has at least one earlier event in its window.
        first_target: Index of the first event that may be scored. The overlap of the first window
            has as many earlier events as ``overlap_fraction`` allows.

    Returns:
        Windows in order; none for fewer than two events. With branches, ``num_tokens`` includes
        them, and also the last event, which the history omits.

    Raises:
        EventTooLongError: One event alone exceeds the budget.
    """
    scored = max(1, first_target)
    if scored >= len(events):
        return []
    costs = _SequenceCosts(events, template, branch_costs)
    num_prefix = len(template.prefix)
    budget = max_tokens - num_prefix
    max_overlap = int(budget * overlap_fraction)
    # with branches, the overlap of a window has at least one event
    min_overlap = 0 if branch_costs is None else 1
    start = 0
    if first_target > 1:
        start = min(costs.overlap_start(scored, max_overlap), scored - min_overlap)
    windows: list[Window] = []
    while scored < len(events):
        end, num_tokens = costs.longest_window(start, scored, budget)
        if end <= scored:
            if start >= scored - min_overlap:
                raise EventTooLongError(scored, costs.of_event_alone(start, scored), budget)
            start += 1  # shorten the overlap until the next event fits
            continue
        windows.append(Window(start, end, scored, num_tokens + num_prefix))
        scored = end
        start = max(start + 1, costs.overlap_start(end, max_overlap))
        start = min(start, end - min_overlap)
    return windows


class _SequenceCosts:
    """The number of tokens of any window of one sequence, without the prefix.

    Args:
        events: The sequence, E events.
        template: Template of the windows.
        branch_costs: (E + 1,) number of tokens of the branches of each event; None for windows
            without branches.
    """

    def __init__(
        self, events: Events, template: Template, branch_costs: NDArray[np.int64] | None
    ) -> None:
        self._events, self._template = events, template
        self._history = np.append(0, np.cumsum(template.costs(events)))
        self._branches = np.zeros(len(events) + 1, dtype=np.int64)
        if branch_costs is not None:
            self._branches[1:] = np.cumsum(branch_costs[:-1])
        self._both = self._history + self._branches
        self._restart = template.restart_costs(events)
        # a run of more than MAX_COUNT that is cut at both ends may take one token more
        self._is_exact = template.settings.run_encoding == "token"

    def overlap_start(self, scored: int, max_overlap: int) -> int:
        """The earliest event from which the overlap before ``scored`` has ``max_overlap`` tokens
        or fewer."""
        earliest = int(self._history[scored]) - max_overlap
        return int(np.searchsorted(self._history, earliest, side="left"))

    def longest_window(self, start: int, scored: int, budget: int) -> tuple[int, int]:
        """The longest window that fits.

        Args:
            start: First event.
            scored: First scored event; earlier events have no branches.
            budget: Maximum number of tokens.

        Returns:
            The index after the last event, at most ``scored`` if no scored event fits; and the
            number of tokens.
        """
        unscored = int(self._branches[scored] - self._branches[start])
        end = int(_ends(self._restart, self._both, budget + unscored, start))
        num_tokens = self._num_tokens(start, scored, end)
        while end > scored and num_tokens > budget:
            end -= 1
            num_tokens = self._num_tokens(start, scored, end)
        return end, num_tokens

    def of_event_alone(self, start: int, event: int) -> int:
        """Number of tokens of one scored event with the overlap from ``start``."""
        tokens = _cost(self._events, self._template, start, event + 1)
        return tokens + int(self._branches[event + 1] - self._branches[event])

    def _num_tokens(self, start: int, scored: int, end: int) -> int:
        branches = int(self._branches[end]) - int(self._branches[scored])
        if not self._is_exact:
            return _cost(self._events, self._template, start, end) + branches
        restart = self._restart
        history = self._history[end] - self._history[start]
        shows_again = restart.image_at[start] < end
        return int(history + restart.image[start] * shows_again) + branches


def last_window(
    events: Events, template: Template, *, max_tokens: int, question_tokens: int
) -> Window:
    """The longest window at the end of a sequence that leaves room for a question about the future.

    Args:
        events: The whole sequence with its similar marks, at least one event.
        template: Template that determines the number of tokens of an event.
        max_tokens: Maximum length of the window and the question, in tokens.
        question_tokens: Number of tokens of the question, and of the newest event if it is
            compressed.

    Returns:
        A window without scored events.

    Raises:
        EventTooLongError: The last event alone does not fit.
    """
    num_events = len(events)
    budget = max_tokens - len(template.prefix) - question_tokens
    costs = template.costs(events)
    start = num_events - int(np.searchsorted(np.cumsum(costs[::-1]), budget, side="right"))
    while start < num_events and _cost(events, template, start, num_events) > budget:
        start += 1  # the window shows an image again, or cuts a run
    if start == num_events:
        tokens = _cost(events, template, num_events - 1, num_events)
        raise EventTooLongError(num_events - 1, tokens, budget)
    tokens = _cost(events, template, start, num_events) + question_tokens + len(template.prefix)
    return Window(start, num_events, num_events, tokens)


def with_older_events(window: Window, template: Template, *, max_tokens: int) -> Window:
    """The window with the events before it, one similar-event token each.

    Args:
        window: Window of events in full.
        template: Template with ``run_encoding = token``.
        max_tokens: Maximum number of tokens of the older events.
    """
    num_older = min(window.start, max_tokens // template.similar_cost)
    if not num_older:
        return window
    return replace(
        window,
        start=window.start - num_older,
        num_tokens=window.num_tokens + num_older * template.similar_cost,
        num_older=num_older,
    )


def check_events(events: Events, template: Template, *, max_tokens: int) -> None:
    """Check that every event fits a window of its own, except similar events.

    Without this check, ``last_window`` would start after an event that does not fit, and omit all
    earlier events.

    Raises:
        EventTooLongError: An event does not fit; the error names the first.
    """
    tokens = np.where(events.similar, 0, template.costs_alone(events))
    if (tokens > max_tokens).any():
        event = int(np.argmax(tokens > max_tokens))
        size = len(template.prefix)
        raise EventTooLongError(event, int(tokens[event]) - size, max_tokens - size)


def future_origins(
    times: NDArray[np.float64], count: int, *, horizon: float, first: int
) -> list[int]:
    """The origins of futures in a sequence, evenly spaced, as numbers of events before the origin.

    Args:
        times: (E,) times, not decreasing, at least one.
        count: Number of origins. Fewer are returned if there is no room.
        horizon: Length of a future, in the unit of ``times``; the sequence holds all of it.
        first: Minimum number of events before the first origin.
    """
    last = int(np.searchsorted(times, float(times[-1]) - horizon, side="right"))
    step = (last - first) / max(1, count - 1)
    origins = sorted({round(first + index * step) for index in range(count)})
    return [origin for origin in origins if first <= origin <= last]


def events_that_fit(events: Events, template: Template, *, max_tokens: int) -> NDArray[np.int64]:
    """The number of events that a context holds.

    Args:
        events: A whole sequence with its similar marks.
        template: Template that determines the number of tokens of an event.
        max_tokens: Length of the context, in tokens.

    Returns:
        One number for every start from which the sequence fills the context, in order.
    """
    costs = np.append(0, np.cumsum(template.costs(events)))
    starts = np.arange(len(events))
    budget = max_tokens - len(template.prefix)
    ends = _ends(template.restart_costs(events), costs, budget, starts)
    counts = ends - starts
    return counts[ends < len(events)]


def _ends(
    restart: RestartCosts,
    costs: NDArray[np.int64],
    budget: int,
    starts: NDArray[np.int64] | int,
) -> NDArray[np.int64]:
    """The ends of the longest windows of at most ``budget`` tokens, for each start.

    Args:
        restart: Extra tokens of windows that start in the middle.
        costs: (E + 1,) number of tokens before each event.
        budget: Maximum number of tokens.
        starts: First events of the windows.
    """
    # the method: NumPy's function takes twice as long for one start
    find = cast("Callable[..., NDArray[np.int64]]", costs.searchsorted)
    limits = costs[starts] + budget - restart.run[starts]
    image_at = np.asarray(restart.image_at[starts], dtype=np.int64)
    without = find(limits, side="right") - 1
    with_image = find(limits - restart.image[starts], side="right") - 1
    # a window may also end before the event that would have to show its image again
    return np.where(image_at >= without, without, np.maximum(with_image, image_at))


def _cost(events: Events, template: Template, start: int, end: int) -> int:
    """Number of tokens of a window, without the prefix, exactly as it would be written."""
    return int(template.costs(events.slice(start, end)).sum())
