"""Forecast the event after the last event of sequences with a soft model, in Ray Data actors."""

from dataclasses import dataclass

import pyarrow as pa

from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.model_actor import ModelActorSettings
from mmtpp.inference.soft_actor import SoftActor
from mmtpp.predict.density_next_event import DensityForecastSettings, Origin, forecast_after
from mmtpp.predict.forecast_result import forecast_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftNextEventActorSettings(ModelActorSettings):
    """Settings of ``SoftNextEventActor``.

    Attributes:
        forecast: Settings of the forecasts.
    """

    forecast: DensityForecastSettings


class SoftNextEventActor(SoftActor):
    """Forecasts the event after the last event of sequences.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: SoftNextEventActorSettings) -> None:
        super().__init__(settings)
        self._forecast = settings.forecast
        self._schema = forecast_schema(
            settings.forecast.trained_tasks, settings.forecast.prediction
        )

    def process(self, sample: AssembledRow) -> pa.Table:
        """Forecast one sequence, one row of ``forecast_schema``."""
        origin = Origin(
            sequence_id=sample.sequence_ids[0].as_py(),
            num_events=int(sample.event_values("position")[-1]) + 1,
            context=len(sample.row.event_type),
            time=float(sample.event_values("time")[-1]),
            type_code=int(sample.row.event_type[-1]),
        )
        forecast = forecast_after(
            origin, lambda size: self.begin_rollout(sample, size), self._forecast
        )
        record = forecast.as_row(self._forecast.prediction.quantiles)
        return pa.Table.from_pylist([record], self._schema)
