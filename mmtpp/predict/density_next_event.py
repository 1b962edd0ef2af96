"""Densities forecast the event after the last one of sequences: an expert's or a soft model's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mmtpp.config.schema import PredictionSection
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.seeds import seed_from
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts, density_grid
from mmtpp.expert.expert_futures import FUTURES_PER_PASS, FutureSettings, sample_futures
from mmtpp.expert.rollout import ExpertRollout, Rollout
from mmtpp.expert.sequence_state import SequenceState, forecasts_after
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.predict.forecast_result import Forecast, FutureEvent, named_futures, named_probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityForecastSettings:
    """Settings of forecasts by densities, those of an expert or of a soft model.

    Attributes:
        trained_tasks: Types, unit of time and intervals of the training.
        prediction: Section ``prediction`` of the settings.
        seed: Seed of the futures, combined with the name of the sequence.
    """

    trained_tasks: TrainedTasks
    prediction: PredictionSection
    seed: int

    @property
    def grid(self) -> IntervalGrid:
        """Grid of the interval forecasts."""
        return density_grid(self.trained_tasks.interval_range)


@dataclass(frozen=True, slots=True)
class Origin:
    """The last event of a sequence.

    Attributes:
        sequence_id: Name of the sequence.
        num_events: Number of its events.
        context: Number of events that the model sees.
        time: Time of the last event.
        type_code: Code of its type.
    """

    sequence_id: str
    num_events: int
    context: int
    time: float
    type_code: int


def forecast_next_event(
    sequence_id: str, expert: Expert, state: SequenceState, settings: DensityForecastSettings
) -> Forecast:
    """Forecast the event after the last event of a sequence with an expert.

    Args:
        sequence_id: Name of the sequence.
        expert: The expert.
        state: State of the sequence after its last event.
        settings: Settings of the forecast.
    """
    [forecast] = forecast_next_events([sequence_id], expert, [state], settings)
    return forecast


def forecast_next_events(
    sequence_ids: Sequence[str],
    expert: Expert,
    states: Sequence[SequenceState],
    settings: DensityForecastSettings,
) -> list[Forecast]:
    """Forecast the next event of N sequences, and futures if ``prediction`` asks for them.

    Args:
        sequence_ids: (N,) names of the sequences, at least one.
        expert: The expert.
        states: (N,) states of the sequences after their last events.
        settings: Settings of the forecasts.
    """
    origins = [
        _origin(sequence_id, state, settings.trained_tasks)
        for sequence_id, state in zip(sequence_ids, states, strict=True)
    ]
    num_futures = settings.prediction.num_futures
    size = max(1, FUTURES_PER_PASS // num_futures) if num_futures else len(states)
    forecasts: list[Forecast] = []
    for start in range(0, len(states), size):
        part = slice(start, start + size)
        after = forecasts_after(expert, states[part])
        begin_rollout = partial(ExpertRollout, expert, states[part])
        forecasts += _forecast_all(origins[part], after, begin_rollout, settings)
    return forecasts


def _origin(sequence_id: str, state: SequenceState, trained_tasks: TrainedTasks) -> Origin:
    num_events = int(state.memory.num_events)
    return Origin(
        sequence_id=sequence_id,
        num_events=num_events,
        context=num_events,
        time=float(state.memory.last_time),
        type_code=trained_tasks.type_codes[state.type],
    )


def forecast_after(
    origin: Origin, begin_rollout: Callable[[int], Rollout], settings: DensityForecastSettings
) -> Forecast:
    """Forecast the next event by densities, and futures if ``prediction`` asks for them.

    Args:
        origin: The last event.
        begin_rollout: Returns futures at the origin, given their number.
        settings: Settings of the forecasts.
    """
    [forecast] = _forecast_all([origin], begin_rollout(1).forecasts, begin_rollout, settings)
    return forecast


def _forecast_all(
    origins: Sequence[Origin],
    forecasts: ExpertForecasts,
    begin_rollout: Callable[[int], Rollout],
    settings: DensityForecastSettings,
) -> list[Forecast]:
    """Forecasts after N last events, from the densities and the beginnings of futures."""
    trained_tasks = settings.trained_tasks
    on_grid = forecasts.on_grid(settings.grid, is_exact=True)
    intervals, log_probabilities = on_grid.intervals(), on_grid.type_log_probabilities()
    futures = _futures(origins, begin_rollout, settings)
    return [
        Forecast(
            sequence_id=origin.sequence_id,
            events=origin.num_events,
            context=origin.context,
            last_time=origin.time,
            last_type=trained_tasks.name_of(origin.type_code),
            interval=interval,
            type_probabilities=named_probabilities(log_probability, trained_tasks),
            futures=of_origin,
        )
        for origin, of_origin, interval, log_probability in zip(
            origins, futures, intervals.split(), log_probabilities, strict=True
        )
    ]


def _futures(
    origins: Sequence[Origin],
    begin_rollout: Callable[[int], Rollout],
    settings: DensityForecastSettings,
) -> Sequence[tuple[tuple[FutureEvent, ...], ...] | None]:
    """Sampled futures of each origin; None if ``prediction`` asks for none."""
    trained_tasks, prediction = settings.trained_tasks, settings.prediction
    if not prediction.num_futures:
        return [None] * len(origins)
    sampled = sample_futures(
        begin_rollout(prediction.num_futures),
        FutureSettings(
            prediction.num_futures, prediction.horizon or np.inf, prediction.max_future_events
        ),
        [
            np.random.default_rng(seed_from("futures", settings.seed, origin.sequence_id))
            for origin in origins
        ],
    )
    codes = np.asarray(trained_tasks.type_codes)
    return [
        named_futures(futures, codes[futures.types], origin.time, trained_tasks)
        for origin, futures in zip(origins, sampled, strict=True)
    ]
