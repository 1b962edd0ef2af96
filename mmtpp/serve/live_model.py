"""What is asked of a model that forecasts live sequences."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmtpp.api.forecaster import Forecaster
from mmtpp.core.errors import MmtppError
from mmtpp.core.events import EventSequence
from mmtpp.predict.forecast_result import Forecast

ReadEvents = Callable[[str], EventSequence]


@dataclass(frozen=True, slots=True)
class ForecastRequest:
    """What is asked of a forecast.

    Attributes:
        sequence_id: Name of the sequence.
        futures: Number of sampled futures.
        horizon: Length of a future, in the model's unit; 0 for no limit but the number of events.
        text: Whether the text of the next event is generated.
        seed: Seed of the futures.
    """

    sequence_id: str
    futures: int = 0
    horizon: float = 0.0
    text: bool = False
    seed: int = 0


class LiveModel(ABC):
    """Forecasts live sequences.

    Attributes:
        forecaster: The model.
        max_batch: Largest number of forecasts that are computed before the first one is answered.
    """

    max_batch = 64

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster

    @property
    @abstractmethod
    def known_codes(self) -> frozenset[int]:
        """Codes of the types that the model can read."""

    @abstractmethod
    def advance(self, added: Mapping[str, tuple[int, EventSequence]]) -> None:
        """Take note of new events: by sequence the number of events before, and the events."""

    def batch_size(self, requests: Sequence[ForecastRequest]) -> int:
        """Number of the first requests that are forecast together, at least 1."""
        return min(self.max_batch, len(requests))

    @abstractmethod
    def forecast(
        self, requests: Sequence[ForecastRequest], read: ReadEvents
    ) -> list[Forecast | MmtppError]:
        """Forecast sequences.

        Args:
            requests: What is asked, at least one; the sequences have events.
            read: Reads all events of a sequence.

        Returns:
            A forecast for each request, or why the model cannot answer it.
        """

    @abstractmethod
    def remove(self, sequence_id: str) -> None:
        """Forget a sequence."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Figures for monitoring, by name."""

    def drift(self) -> dict[str, float]:
        """How far new events are from the forecasts before them, by name; none by default."""
        return {}
