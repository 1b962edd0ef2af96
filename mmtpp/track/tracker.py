"""What the rest of the program knows of experiment tracking."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrackedData:
    """Data that a run reads.

    Attributes:
        name: short.
        uri: where they are.
        digest: of their content.
        context: what they are read for: ``training``, ``evaluation``.
        counts: of what is in them.
    """

    name: str
    uri: str
    digest: str
    context: str
    counts: Mapping[str, int]


class Tracker(Protocol):
    """Records one run. No call raises or waits for the server: training goes on without it."""

    @property
    def run_id(self) -> str | None:
        """Id of the run; None while the server has not answered yet."""
        ...

    def params(self, values: Mapping[str, object]) -> None:
        """Record settings, once."""
        ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record measurements of a step."""
        ...

    def tags(self, values: Mapping[str, str]) -> None:
        """Record labels."""
        ...

    def text(self, name: str, content: str) -> None:
        """Record a small text file."""
        ...

    def folder(self, uri: str, name: str) -> None:
        """Record the files below a URI as artifacts."""
        ...

    def close(self, status: str) -> None:
        """Send what is left, for a limited time; ``FINISHED``, ``FAILED``, or "" to leave open."""
        ...


class NullTracker:
    """Records nothing: ranks other than the first."""

    run_id: str | None = None

    def params(self, values: Mapping[str, object]) -> None: ...
    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def text(self, name: str, content: str) -> None: ...
    def folder(self, uri: str, name: str) -> None: ...
    def close(self, status: str) -> None: ...
