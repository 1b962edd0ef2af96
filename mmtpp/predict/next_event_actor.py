"""An actor that forecasts the event after the last one with a language model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.gated_expert import GatedExpert, load_gated_expert
from mmtpp.expert.stored_past import StoredPast
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.event_places import positioned_events
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.predict.forecast_result import forecast_schema
from mmtpp.predict.next_event import NextEventForecaster, NextEventSettings, SeenEvents


@dataclass(frozen=True, slots=True, kw_only=True)
class NextEventActorSettings(ModelActorSettings):
    """Settings of ``NextEventActor``.

    Attributes:
        forecast: Settings of the forecasts.
    """

    forecast: NextEventSettings


class NextEventActor(ModelActor):
    """Forecasts the event after the last event of sequences.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: NextEventActorSettings) -> None:
        super().__init__(settings)
        template = settings.sample_settings.build_template(self.loaded.token_ids)
        self._past: StoredPast | None = None
        gated: GatedExpert | None = None
        if settings.location.expert_uri:
            gated = load_gated_expert(settings.location.expert_uri)
            self._past = StoredPast(gated.expert, gated.type_codes, settings.sample_settings.store)
        self._forecast = NextEventForecaster(self.loaded, template, settings.forecast, gated)
        self._prediction = settings.forecast.prediction
        self._schema = forecast_schema(settings.forecast.trained_tasks, self._prediction)

    def process(self, sample: AssembledRow) -> pa.Table:
        """Forecast one sequence, one row of ``forecast_schema``."""
        past: PastEvents | None = None
        if self._past is not None:
            [following] = positioned_events(sample, np.array([len(sample.row.event_type)]))
            past = self._past.past(following)
        seen = SeenEvents(
            sample.sequence_ids[0].as_py(),
            sample.row,
            int(sample.event_values("position")[-1]) + 1,
            sample.event_values("time"),
            past,
        )
        record = self._forecast(seen).as_row(self._prediction.quantiles)
        return pa.Table.from_pylist([record], self._schema)
