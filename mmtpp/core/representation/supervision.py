"""Supervision: which tokens of a sample are labels, and which questions are asked about events.

One class for each mode; all modes have the same properties. ``tasks.py`` has the tasks,
``branches.py`` writes the questions.
"""

from dataclasses import dataclass
from typing import ClassVar

from mmtpp.core.representation.tasks import EVENT_TASKS


@dataclass(frozen=True, slots=True)
class AllTokens:
    """Every token of the events is a label, and no question is asked (stage 1)."""

    asks_questions: ClassVar[bool] = False
    asks_ahead: ClassVar[bool] = False
    labels_history: ClassVar[bool] = True
    asks_in_words: ClassVar[bool] = False
    event_tasks: ClassVar[tuple[str, ...]] = ()
    first_bytes: ClassVar[tuple[int, ...]] = ()


@dataclass(frozen=True, slots=True)
class _QuestionMode:
    """What all modes that may ask questions share.

    Attributes:
        asks_ahead: Whether the questions are about the event that follows a window, instead of the
            events of the window.
        tasks: Names of ``core.representation.tasks.TASKS``.
        first_bytes: First bytes of the time codes that follow a question about the time. Forecasts
            read the probability of a code from them; training has none.
    """

    asks_ahead: ClassVar[bool] = True

    tasks: tuple[str, ...]
    first_bytes: tuple[int, ...] = ()

    @property
    def asks_questions(self) -> bool:
        """Whether questions are asked; not where soft tokens forecast without questions."""
        return bool(self.tasks)

    @property
    def event_tasks(self) -> tuple[str, ...]:
        """Tasks that ask about an event."""
        return tuple(task for task in self.tasks if task in EVENT_TASKS)

    @property
    def asks_in_words(self) -> bool:
        """Whether the questions that come with a sequence are asked."""
        return "qa" in self.tasks


@dataclass(frozen=True, slots=True)
class EveryEvent(_QuestionMode):
    """Questions about every event of a window except its overlap.

    Attributes:
        labels_history: Whether the tokens of the history are labels too, as in stage 1.
    """

    asks_ahead: ClassVar[bool] = False

    labels_history: bool = False


@dataclass(frozen=True, slots=True)
class FollowingEvent(_QuestionMode):
    """Questions about the event that follows the last one of each sequence."""

    labels_history: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class FutureOrigins(_QuestionMode):
    """Questions from several points of each sequence, the origins of sampled futures.

    Attributes:
        num_origins: Maximum number of origins in a sequence, at least 1. Origins are evenly spaced,
            and at least ``horizon`` of the sequence follows each origin.
        horizon: Length of the futures in the source's time unit.
    """

    labels_history: ClassVar[bool] = False

    num_origins: int = 1
    horizon: float = 0.0


QuestionMode = EveryEvent | FollowingEvent | FutureOrigins
Supervision = AllTokens | QuestionMode


def fingerprint_record(questions: QuestionMode) -> dict[str, object]:
    """Fields of a plan's fingerprint. The keys stay the same, so earlier plans stay valid."""
    origins = questions if isinstance(questions, FutureOrigins) else None
    return {
        "tasks": questions.tasks,
        "expansions": questions.first_bytes,
        "history_is_scored": questions.labels_history,
        "ahead": questions.asks_ahead,
        "origins": origins.num_origins if origins else 0,
        "horizon": origins.horizon if origins else 0.0,
    }
