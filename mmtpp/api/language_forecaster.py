"""Forecasts of sequences in memory by a language model that reads templates."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from mmtpp.api.history_reader import HistoryReader
from mmtpp.api.past_reader import read_past
from mmtpp.config.schema import PredictionSection, RunConfig
from mmtpp.core.events import EventSequence
from mmtpp.core.representation.template import Template
from mmtpp.data.from_config import build_template_settings, write_type_names
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.inference.model_sections import build_generation_settings
from mmtpp.model.decoding.continued_rows import PASS_TOKENS, ContinuedForecaster, can_continue
from mmtpp.model.decoding.history_cache import HistoryCache
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.history_keys import HistoryKeys
from mmtpp.model.loaded_model import LoadedModel
from mmtpp.model.row_forecaster import RowForecasts
from mmtpp.predict.forecast_result import Forecast
from mmtpp.predict.next_event import (
    NextEventForecaster,
    NextEventSettings,
    SeenEvents,
    build_row_forecaster,
)

_FORECAST_TASKS = ("time", "type")
_KEPT_SETTINGS = 8  # different wishes whose forecaster is kept


class LanguageForecaster:
    """Forecasts the event after the last one of sequences.

    Args:
        loaded: The model on its device.
        config: Settings of template, compression, context and generation.
        trained_tasks: Tasks that the model was trained on.
        path: Folder of the model, for errors.
        gated: Expert that is mixed in; None for the language model alone.
        max_cache_bytes: Largest memory of the keys and values that are kept of histories.

    Attributes:
        cache: The kept keys and values, by name of the sequence.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: RunConfig,
        trained_tasks: TrainedTasks,
        *,
        path: str,
        gated: GatedExpert | None,
        max_cache_bytes: int = 0,
    ) -> None:
        self._loaded, self._config, self._trained_tasks = loaded, config, trained_tasks
        self._gated = gated
        self.cache = HistoryCache(max_cache_bytes)
        self._grid = trained_tasks.interval_range.grid(num_bytes=config.template.time_bytes)
        words: tuple[tuple[int, ...], ...] = ()
        if config.template.types == "words":
            words = write_type_names(trained_tasks.type_names, loaded.vocabulary, where=path)
        settings = build_template_settings(
            config.sample_sections,
            seconds_per_unit=trained_tasks.seconds_per_unit,
            type_words=words,
        )
        self._template = Template(loaded.token_ids, settings, has_questions=True)
        tasks = [task for task in _FORECAST_TASKS if task in trained_tasks.tasks]
        self._read = HistoryReader(config, loaded.vocabulary, self._template, tasks)
        self._forecast_row = build_row_forecaster(loaded, trained_tasks, self._grid)
        self._continue = ContinuedForecaster(loaded.model, self._forecast_row)
        self._next_event = lru_cache(_KEPT_SETTINGS)(
            partial(
                _build_next_event,
                loaded,
                self._template,
                gated,
                trained_tasks=trained_tasks,
                grid=self._grid,
                generation=build_generation_settings(config.generation),
            )
        )

    def read(self, sequence: EventSequence) -> SeenEvents:
        """The newest events of a sequence, as the model reads them.

        Raises:
            DataError: An image is invalid, or an event is larger than the context.
        """
        seen = self._read(sequence, self._grid)
        if self._gated is None:
            return seen
        expert, codes = self._gated.expert, self._gated.type_codes
        return replace(seen, past=read_past(sequence, self._loaded.vocabulary, expert, codes))

    def forecast(self, seen: SeenEvents, prediction: PredictionSection, seed: int) -> Forecast:
        """Forecast the next event, and what else ``prediction`` asks for."""
        return self.complete(seen, self.whole_row(seen), prediction, seed)

    def whole_row(self, seen: SeenEvents) -> RowForecasts:
        """Forecasts of a row; all of its tokens pass the model."""
        return self._forecast_row(seen.row, self._loaded.batcher(seen.row))

    def forecast_rows(self, seen: Sequence[SeenEvents]) -> dict[str, RowForecasts]:
        """Forecast the next events of several sequences together.

        Tokens whose keys and values are in the cache do not pass the model again; new ones of the
        histories are added. A row that cannot be continued is read whole.

        Args:
            seen: The newest events of sequences with different names.

        Returns:
            Forecasts by name of the sequence.
        """
        result: dict[str, RowForecasts] = {}
        group: list[tuple[SeenEvents, HistoryKeys]] = []
        num_new = 0  # tokens of the group that pass the model
        for events in seen:
            if not can_continue(events.row):
                result[events.sequence_id] = self.whole_row(events)
                self.cache.remove(events.sequence_id)
                self.cache.num_uncached += 1
                continue
            keys = self.cache.take(events.sequence_id, events.row.history_ids)
            size = len(events.row.input_ids) - len(keys)
            if group and num_new + size > PASS_TOKENS:
                result |= self._forecast_group(group)
                group, num_new = [], 0
            group.append((events, keys))
            num_new += size
        return result | self._forecast_group(group)

    def _forecast_group(
        self, group: Sequence[tuple[SeenEvents, HistoryKeys]]
    ) -> dict[str, RowForecasts]:
        """Forecast sequences in one pass, and keep their histories before others are read: so the
        keys and values beyond the limit of the cache are those of one pass."""
        forecasts = self._continue([events.row for events, _ in group], [keys for _, keys in group])
        for events, keys in group:
            self.cache.put(events.sequence_id, keys)
        names = [events.sequence_id for events, _ in group]
        return dict(zip(names, forecasts, strict=True))

    def complete(
        self,
        seen: SeenEvents,
        forecasts: RowForecasts,
        prediction: PredictionSection,
        seed: int,
    ) -> Forecast:
        """The forecast of the next event from those of its row.

        Futures and texts continue the kept keys and values of the history.

        Args:
            seen: The events and their row.
            forecasts: Forecasts of the row.
            prediction: Section ``prediction`` of the settings: futures and texts.
            seed: Seed of the futures.
        """
        known = self.cache.get(seen.sequence_id) if can_continue(seen.row) else None
        # a frozen model of pydantic has a hash
        forecaster = self._next_event(prediction=prediction, seed=seed)  # pyright: ignore[reportArgumentType]
        return forecaster.complete(seen, forecasts, known)


def _build_next_event(
    loaded: LoadedModel, template: Template, gated: GatedExpert | None, **settings: Any
) -> NextEventForecaster:
    """A forecaster with its own settings.

    A function, because a cache of a method would hold its object, and so the weights of a model
    that was replaced.
    """
    return NextEventForecaster(loaded, template, NextEventSettings(**settings), gated)
