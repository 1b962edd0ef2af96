"""Live sequences forecast by language models: with kept keys and values, or from soft tokens."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from mmtpp.api.forecaster import Forecaster
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError, MmtppError
from mmtpp.core.events import MAX_TYPES, EventSequence
from mmtpp.predict.forecast_result import Forecast
from mmtpp.predict.next_event import SeenEvents
from mmtpp.serve.live_model import ForecastRequest, LiveModel, ReadEvents

MAX_CACHE_MIB = 1024
"""Default of the largest memory of the keys and values that a language model keeps, in MiB."""

KEPT_SETTINGS = 32  # different wishes whose settings are kept


class LiveLanguageModel(LiveModel):
    """A language model: it reads the newest events that fit its context for each forecast.

    The keys and values of the histories that were read last are kept, so that only the tokens of
    new events pass the model.

    Args:
        forecaster: A language model that reads templates.
        max_cache_bytes: Largest memory of the keys and values.
    """

    max_batch = 16

    def __init__(self, forecaster: Forecaster, *, max_cache_bytes: int) -> None:
        super().__init__(forecaster)
        self._language = forecaster.language_forecaster(max_cache_bytes=max_cache_bytes)
        self._settings_of = lru_cache(KEPT_SETTINGS)(forecaster.settings_of)

    @property
    def known_codes(self) -> frozenset[int]:
        """All codes of types; with a mixed expert, those of its training store."""
        if self.forecaster.gated is not None:
            return frozenset(self.forecaster.gated.type_codes)
        return _all_codes(self.forecaster)

    def advance(self, added: Mapping[str, tuple[int, EventSequence]]) -> None:
        """New events are read when a forecast is asked for."""

    def batch_size(self, requests: Sequence[ForecastRequest]) -> int:
        """Number of the first requests that are forecast together; futures and texts are decoded
        alone."""
        decoded = [index for index, asked in enumerate(requests) if asked.futures or asked.text]
        return max(1, min(self.max_batch, *decoded[:1], len(requests)))

    def forecast(
        self, requests: Sequence[ForecastRequest], read: ReadEvents
    ) -> list[Forecast | MmtppError]:
        """Forecast sequences; all pass the model together."""
        seen: dict[str, SeenEvents] = {}
        wanted: dict[int, RunConfig] = {}
        answers: dict[int, Forecast | MmtppError] = {}
        for index, request in enumerate(requests):
            name = request.sequence_id
            try:
                wanted[index] = self._settings_of(
                    futures=request.futures, horizon=request.horizon, text=request.text
                )
                if name not in seen:
                    seen[name] = self._language.read(read(name))
            except (ConfigError, DataError) as error:
                answers[index] = error
        rows = self._language.forecast_rows(list(seen.values()))
        for index, config in wanted.items():
            if index not in answers:
                name, seed = requests[index].sequence_id, requests[index].seed
                answers[index] = self._language.complete(
                    seen[name], rows[name], config.prediction, seed
                )
        return [answers[index] for index in range(len(requests))]

    def remove(self, sequence_id: str) -> None:
        """Forget a sequence."""
        self._language.cache.remove(sequence_id)

    def counts(self) -> dict[str, int]:
        """Figures of the kept keys and values, see ``HistoryCache``."""
        cache = self._language.cache
        return {
            "histories": len(cache),
            "history_bytes": cache.num_bytes,
            "histories_dropped": cache.num_dropped,
            "histories_computed": cache.num_computed,
            "histories_cut": cache.num_cut,
            "histories_uncached": cache.num_uncached,
            "history_tokens_kept": cache.tokens_kept,
            "history_tokens_computed": cache.tokens_computed,
        }


class LiveSoftModel(LiveModel):
    """A language model of soft tokens: it reads the newest events for each forecast."""

    max_batch = 1

    @property
    def known_codes(self) -> frozenset[int]:
        """All codes of types."""
        return _all_codes(self.forecaster)

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


def _all_codes(forecaster: Forecaster) -> frozenset[int]:
    return frozenset(range(len(forecaster.type_names) or MAX_TYPES))
