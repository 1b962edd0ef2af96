"""The learning curve of a training: NLL of the validation split against time and events."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class CurvePoint(NamedTuple):
    """One validation of a model in training.

    Attributes:
        seconds: CPU seconds of training before it, without earlier validations.
        num_events: Number of training events before it; repeated events count each time.
        nll: NLL of the validation split, in nats per event.
    """

    seconds: float
    num_events: int
    nll: float


class LearningCurve:
    """The points of a curve, and the counts of its training so far.

    Attributes:
        points: The validations, in their order.
        seconds: CPU seconds of training.
        num_events: Number of training events; repeated events count each time.
    """

    def __init__(self) -> None:
        self.points: list[CurvePoint] = []
        self.seconds, self.num_events = 0.0, 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the CPU seconds within as training; those of validations are outside."""
        started = time.process_time()
        yield
        self.seconds += time.process_time() - started

    def add_point(self, nll: float) -> None:
        """Add a validation after the training so far."""
        self.points.append(CurvePoint(self.seconds, self.num_events, nll))
