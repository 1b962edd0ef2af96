"""Interface of experiment tracking, without MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Names and ids of a run.

    Attributes:
        run_name: Name in MLflow's user interface.
        run_uri: Folder of the run.
        run_key: Key of the MLflow run: the same key always finds the same run.
        mlflow_run_id: Id of the MLflow run, if already known.
    """

    run_name: str
    run_uri: str
    run_key: str
    mlflow_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class TrackedData:
    """Data that a run reads.

    Attributes:
        name: Short name.
        uri: URI of the data.
        digest: Hash of the content.
        context: Use of the data: ``training`` or ``evaluation``.
        counts: Numbers of events, frames and sequences, by name.
    """

    name: str
    uri: str
    digest: str
    context: str
    counts: Mapping[str, int]


class Tracker(Protocol):
    """Records one run. No method raises an error or waits for the server, so training continues."""

    @property
    def run_id(self) -> str | None:
        """Id of the run; None until the server answers."""
        ...

    def log_params(self, values: Mapping[str, object]) -> None:
        """Record settings, once per run."""
        ...

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step."""
        ...

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        ...

    def log_text(self, name: str, content: str) -> None:
        """Record a small text file."""
        ...

    def log_folder(self, uri: str, name: str) -> None:
        """Record the files in a folder as artifacts."""
        ...

    def close(self, status: str) -> None:
        """Send the remaining records, within a time limit, and set the status of the run.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        ...

    def detach(self) -> None:
        """Send the remaining records, within a time limit, and leave the run open."""
        ...


class NullTracker:
    """Records nothing: the tracker of every rank except the first."""

    run_id: str | None = None

    def log_params(self, values: Mapping[str, object]) -> None: ...
    def log_metrics(self, step: int, values: Mapping[str, float]) -> None: ...
    def set_tags(self, values: Mapping[str, str]) -> None: ...
    def log_text(self, name: str, content: str) -> None: ...
    def log_folder(self, uri: str, name: str) -> None: ...
    def close(self, status: str) -> None: ...
    def detach(self) -> None: ...
