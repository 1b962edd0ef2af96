"""Forecast the event after the last event of a sequence with a temporal expert."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmtpp.config.schema import PredictionSection
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.seeds import seed_from
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import density_grid
from mmtpp.expert.expert_futures import FutureSettings, sample_futures
from mmtpp.expert.rollout import ExpertRollout, Rollout
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.predict.next_event import Forecast, named_futures, named_probabilities


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


class ExpertNextEventForecaster:
    """Forecasts the event after the last event of a sequence.

    Args:
        expert: The expert.
        settings: Settings of the forecasts.
    """

    def __init__(self, expert: Expert, settings: DensityForecastSettings) -> None:
        self._expert, self._settings = expert, settings

    def __call__(self, sequence_id: str, past: PastEvents) -> Forecast:
        """Forecast the next event, and futures if ``prediction`` asks for them.

        Args:
            sequence_id: Name of the sequence.
            past: All its events; the types are indices of the expert's types.
        """
        code = self._settings.trained_tasks.type_codes[past.types[-1]]
        origin = Origin(sequence_id, len(past), len(past), float(past.times[-1]), code)
        expert = self._expert
        return forecast_after(
            origin, lambda size: ExpertRollout(expert, past, size), self._settings
        )


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


def forecast_after(
    origin: Origin, begin_rollout: Callable[[int], Rollout], settings: DensityForecastSettings
) -> Forecast:
    """Forecast the next event by densities, and futures if ``prediction`` asks for them.

    Args:
        origin: The last event.
        begin_rollout: Returns futures at the origin, given their number.
        settings: Settings of the forecasts.
    """
    trained_tasks, prediction = settings.trained_tasks, settings.prediction
    forecasts = begin_rollout(1).forecasts
    intervals = forecasts.interval_forecasts(settings.grid)
    log_probability = forecasts.marginal_type_log_probabilities(intervals)[0]
    futures = None
    if prediction.num_futures:
        sampled = sample_futures(
            begin_rollout(prediction.num_futures),
            FutureSettings(
                prediction.num_futures,
                prediction.horizon or np.inf,
                prediction.max_future_events,
            ),
            np.random.default_rng(seed_from("futures", settings.seed, origin.sequence_id)),
        )
        codes = np.asarray(trained_tasks.type_codes)
        futures = named_futures(sampled, codes[sampled.types], origin.time, trained_tasks)
    return Forecast(
        sequence_id=origin.sequence_id,
        events=origin.num_events,
        context=origin.context,
        last_time=origin.time,
        last_type=trained_tasks.name_of(origin.type_code),
        interval=intervals,
        type_probabilities=named_probabilities(log_probability, trained_tasks),
        futures=futures,
    )
