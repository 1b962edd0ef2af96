"""A temporal expert that forecasts live sequences from their states."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from mmtpp.api.forecaster import Forecaster
from mmtpp.config.load import with_values
from mmtpp.core.errors import ConfigError, DataError, MmtppError
from mmtpp.core.events import EventSequence
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.folders.folder import load_model_vocabulary
from mmtpp.predict.density_next_event import DensityForecastSettings, forecast_next_events
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.drift_watch import DriftWatch
from mmtpp.serve.expert_states import ExpertStates
from mmtpp.serve.live_model import ForecastRequest, LiveModel, ReadEvents


class LiveExpert(LiveModel):
    """A temporal expert: new events continue the states of their sequences."""

    def __init__(
        self, forecaster: Forecaster, expert: Expert, watch: DriftWatch, *, max_sequences: int
    ) -> None:
        super().__init__(forecaster)
        self._expert, self._watch = expert, watch
        vocabulary = forecaster.vocabulary or load_model_vocabulary(forecaster.path)
        codes = forecaster.trained_tasks.type_codes
        # of the forecaster alone: with self, a cycle would keep a replaced model
        self._settings = lru_cache(maxsize=64)(partial(_build_settings, forecaster))
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
            settings = self._settings(futures, horizon, seed)
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


def _build_settings(
    forecaster: Forecaster, futures: int, horizon: float, seed: int
) -> DensityForecastSettings:
    changes = {"prediction.num_futures": futures, "prediction.horizon": horizon}
    return DensityForecastSettings(
        trained_tasks=forecaster.trained_tasks,
        prediction=with_values(forecaster.config, changes).prediction,
        seed=seed,
    )
