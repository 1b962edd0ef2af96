"""Models that forecast live sequences: a temporal expert from states, others from their events."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import with_values
from mmtpp.core.errors import ConfigError, DataError, MmtppError
from mmtpp.core.events import MAX_TYPES, EventSequence
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.folders.folder import load_model_vocabulary
from mmtpp.predict.expert_next_event import DensityForecastSettings, forecast_next_events
from mmtpp.predict.next_event import Forecast
from mmtpp.serve.drift_watch import DriftWatch
from mmtpp.serve.expert_states import ExpertStates

MAX_SEQUENCES = 100_000
"""Default of the largest number of sequences whose states an expert keeps in memory."""

WATCHED_PER_S = 100.0
"""Default of the largest number of events in a second that are compared with their forecasts."""

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


def live_model(
    forecaster: Forecaster, *, max_sequences: int, watched_per_s: float = WATCHED_PER_S
) -> LiveModel:
    """The live model of a forecaster.

    Args:
        forecaster: A loaded model.
        max_sequences: Largest number of sequences whose states an expert keeps in memory.
        watched_per_s: Largest number of new events in a second that an expert compares with the
            forecasts before them.
    """
    if isinstance(forecaster.model, Expert):
        watch = DriftWatch(forecaster.model, events_per_s=watched_per_s)
        return LiveExpert(forecaster, forecaster.model, watch, max_sequences=max_sequences)
    return LiveLanguageModel(forecaster)


class LiveExpert(LiveModel):
    """A temporal expert: new events continue the states of their sequences."""

    def __init__(
        self, forecaster: Forecaster, expert: Expert, watch: DriftWatch, *, max_sequences: int
    ) -> None:
        super().__init__(forecaster)
        self._expert, self._watch = expert, watch
        vocabulary = forecaster.vocabulary or load_model_vocabulary(forecaster.path)
        codes = forecaster.trained_tasks.type_codes
        self._states = ExpertStates(
            expert, vocabulary, codes, max_sequences=max_sequences, watch=watch
        )

    @property
    def known_codes(self) -> frozenset[int]:
        """Codes of the types that occurred in the training store."""
        return frozenset(self.forecaster.trained_tasks.type_codes)

    def advance(self, added: Mapping[str, tuple[int, EventSequence]]) -> None:
        """Continue the states of the sequences."""
        self._states.advance(added)

    def forecast(
        self, requests: Sequence[ForecastRequest], read: ReadEvents
    ) -> list[Forecast | MmtppError]:
        """Forecast sequences; requests for the same are computed at once."""
        groups: dict[tuple[int, float, int], list[int]] = {}
        states: dict[int, SequenceState] = {}
        answers: dict[int, Forecast | MmtppError] = {}
        for index, request in enumerate(requests):
            try:
                states[index] = self._state(request, read)
            except (ConfigError, DataError) as error:
                answers[index] = error
            else:
                key = (request.futures, request.horizon, request.seed)
                groups.setdefault(key, []).append(index)
        for (futures, horizon, seed), indices in groups.items():
            changes = {"prediction.num_futures": futures, "prediction.horizon": horizon}
            settings = DensityForecastSettings(
                trained_tasks=self.forecaster.trained_tasks,
                prediction=with_values(self.forecaster.config, changes).prediction,
                seed=seed,
            )
            names = [requests[index].sequence_id for index in indices]
            of_group = [states[index] for index in indices]
            forecasts = forecast_next_events(names, self._expert, of_group, settings)
            answers.update(zip(indices, forecasts, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _state(self, request: ForecastRequest, read: ReadEvents) -> SequenceState:
        if request.text:
            raise ConfigError("a temporal expert forecasts no texts", setting="text = true")
        return self._states.get(request.sequence_id, read)

    def remove(self, sequence_id: str) -> None:
        """Forget a sequence."""
        self._states.remove(sequence_id)

    def counts(self) -> dict[str, int]:
        """Numbers of states in memory, dropped for others and computed from the log; of alerts."""
        states = self._states
        return {
            "states": len(states),
            "states_dropped": states.num_dropped,
            "states_computed": states.num_computed,
            "alerts": self._watch.num_alerts,
        }

    def drift(self) -> dict[str, float]:
        """Figures of the newest events that were compared with the forecasts before them."""
        return self._watch.figures()


class LiveLanguageModel(LiveModel):
    """A language model: it reads the newest events that fit its context for each forecast."""

    max_batch = 1

    @property
    def known_codes(self) -> frozenset[int]:
        """All codes of types; with a mixed expert, those of its training store."""
        if self.forecaster.gated is not None:
            return frozenset(self.forecaster.gated.type_codes)
        return frozenset(range(len(self.forecaster.type_names) or MAX_TYPES))

    def advance(self, added: Mapping[str, tuple[int, EventSequence]]) -> None:
        """New events are read when a forecast is asked for."""

    def forecast(
        self, requests: Sequence[ForecastRequest], read: ReadEvents
    ) -> list[Forecast | MmtppError]:
        """Forecast one sequence after the other."""
        return [self._forecast(request, read(request.sequence_id)) for request in requests]

    def _forecast(self, request: ForecastRequest, sequence: EventSequence) -> Forecast | MmtppError:
        try:
            return self.forecaster.forecast(
                sequence,
                futures=request.futures,
                horizon=request.horizon,
                text=request.text,
                seed=request.seed,
            )
        except (ConfigError, DataError) as error:
            return error

    def remove(self, sequence_id: str) -> None:
        """Nothing is kept of a sequence."""

    def counts(self) -> dict[str, int]:
        """No figures."""
        return {}
