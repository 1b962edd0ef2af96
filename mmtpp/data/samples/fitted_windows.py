"""Windows whose texts are cut to fit the context, and the questions in words asked after them."""

from dataclasses import dataclass, replace

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import question_cost
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.text_truncation import cut_with_truncation
from mmtpp.core.representation.window import (
    EventTooLongError,
    Window,
    check_events,
    last_window,
    with_older_events,
)
from mmtpp.data.store.questions import AskedQuestion


@dataclass(frozen=True, slots=True)
class FittedWindow:
    """A window, the limit of its texts and its questions in words.

    Attributes:
        window: Events of the sequence.
        longest_text: Length of the longest text that stays whole, for ``truncate_texts_to_fit``;
            None where all texts stay whole.
        questions: Half-open range of the questions asked after the window.
    """

    window: Window
    longest_text: int | None
    questions: tuple[int, int] = (0, 0)


def fit_questions(
    events: Events,
    questions: tuple[AskedQuestion, ...],
    template: Template,
    *,
    max_tokens: int,
    older_tokens: int = 0,
) -> tuple[list[FittedWindow], list[int]]:
    """Choose windows at the end of a sequence, and the questions in words asked after each.

    Questions share a window while they take no more than half of the context.

    Args:
        events: Events of the whole sequence with their similar marks.
        questions: Questions about the sequence.
        template: Decides how many tokens events and questions take.
        max_tokens: Maximum number of tokens in a window, without its older events.
        older_tokens: Maximum number of tokens of a window's older events, one token each.

    Returns:
        The windows, and the indices of the questions left out: they do not fit even with a single
        event without its text.
    """
    windows: list[FittedWindow] = []
    left_out: list[int] = []
    costs = [
        question_cost(template, question.question_ids, question.answer_ids)
        for question in questions
    ]
    first = 0
    while first < len(costs) and len(events):
        shared_end = first + 1
        while shared_end < len(costs) and sum(costs[first : shared_end + 1]) <= max_tokens // 2:
            shared_end += 1
        for end in (shared_end, first + 1):  # a question alone where several do not fit
            window = _window_before_questions(events, template, max_tokens, sum(costs[first:end]))
            if window is not None:
                whole = with_older_events(window.window, template, max_tokens=older_tokens)
                windows.append(replace(window, window=whole, questions=(first, end)))
                break
        else:
            end = first + 1
            left_out.append(first)
        first = end
    return windows, left_out


def _window_before_questions(
    events: Events, template: Template, max_tokens: int, question_tokens: int
) -> FittedWindow | None:
    """The longest window that leaves room for the questions; None where no event fits."""

    def cut(events: Events) -> Window:
        check_events(events, template, max_tokens=max_tokens)
        return last_window(events, template, max_tokens=max_tokens, question_tokens=question_tokens)

    try:
        return FittedWindow(*cut_with_truncation(events, cut, max_tokens=max_tokens))
    except EventTooLongError:
        return None
