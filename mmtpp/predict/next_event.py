"""A language model forecasts the event after the last one of a sequence, and samples futures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.config.schema import PredictionSection
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template
from mmtpp.core.seeds import seed_from
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.expert.mixed_expert import MixedExpert
from mmtpp.model.decoding.generation import GenerationSettings, TextGenerator
from mmtpp.model.decoding.sampling import FutureSampler
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.history_keys import HistoryKeys
from mmtpp.model.loaded_model import LoadedModel
from mmtpp.model.row_forecaster import RowForecaster, RowForecasts
from mmtpp.predict.forecast_result import (
    Forecast,
    FutureEvent,
    named_futures,
    named_probabilities,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeenEvents:
    """The newest events of a sequence, as far as the model sees them.

    Attributes:
        sequence_id: Name of the sequence.
        row: Row of these events, with a question about the event after the last one.
        num_events: Number of events of the whole sequence.
        times: (E,) times of the seen events, in the source's unit.
        past: All events of the sequence as an expert reads them; None where no expert is mixed in.
    """

    sequence_id: str
    row: PackedRow
    num_events: int
    times: FloatArray
    past: PastEvents | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextEventSettings:
    """Settings of ``NextEventForecaster``.

    Attributes:
        trained_tasks: Tasks that the model was trained on.
        grid: Grid of the interval forecasts.
        prediction: Section ``prediction`` of the settings.
        generation: Settings of written texts.
        seed: Seed of the futures, combined with the name of the sequence.
    """

    trained_tasks: TrainedTasks
    grid: IntervalGrid
    prediction: PredictionSection
    generation: GenerationSettings
    seed: int


def build_row_forecaster(
    loaded: LoadedModel, trained_tasks: TrainedTasks, grid: IntervalGrid
) -> RowForecaster:
    """The forecaster of the questions of rows.

    Args:
        loaded: The model on its device.
        trained_tasks: Tasks and types that the model was trained on.
        grid: Grid of the interval forecasts.
    """
    type_ids = loaded.vocabulary.type_ids(trained_tasks.type_codes)
    return RowForecaster(loaded.model, loaded.token_ids, type_ids, grid)


class NextEventForecaster:
    """Forecasts the event after the last event of a sequence.

    Args:
        loaded: The model on its device.
        template: Template that rows are written with.
        settings: Settings of the forecasts.
        gated: Expert that is mixed in; None for the language model alone.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        template: Template,
        settings: NextEventSettings,
        gated: GatedExpert | None = None,
    ) -> None:
        self._loaded, self._template, self._settings = loaded, template, settings
        self._gated = gated
        trained_tasks = settings.trained_tasks
        type_ids = loaded.vocabulary.type_ids(trained_tasks.type_codes)
        self._forecaster = build_row_forecaster(loaded, trained_tasks, settings.grid)
        self._generate = TextGenerator(loaded.model, loaded.vocabulary, settings.generation)
        self._sample_futures = FutureSampler(
            loaded.model,
            template,
            trained_tasks.type_codes,
            type_ids,
            settings.grid,
            joint="joint" in trained_tasks.tasks,
        )

    def __call__(self, seen: SeenEvents) -> Forecast:
        """Forecast the next event, and what else ``prediction`` asks for."""
        return self.complete(seen, self._forecaster(seen.row, self._loaded.batcher(seen.row)))

    def complete(
        self, seen: SeenEvents, forecasts: RowForecasts, known: HistoryKeys | None = None
    ) -> Forecast:
        """Add the expert, and what else ``prediction`` asks for, to the forecasts of the row.

        Args:
            seen: The seen events.
            forecasts: The forecasts of their row.
            known: Kept keys and values of the row's history; None for none.
        """
        row, trained_tasks = seen.row, self._settings.trained_tasks
        prediction = self._settings.prediction
        interval = forecasts.time.interval if forecasts.time is not None else None
        log_probability = forecasts.type.log_probability if forecasts.type is not None else None
        if (mixed := self._mixed_expert(seen, 1)) is not None:
            grid = self._settings.grid
            interval, log_probability = mixed.mix_forecasts(interval, log_probability, grid)
        type_probabilities: dict[str, float] | None = None
        if log_probability is not None:
            type_probabilities = named_probabilities(log_probability[0], trained_tasks)
        text = None
        if prediction.generate_text:
            assert interval is not None
            text = self._text(row, interval.quantiles((0.5,))[0], known)
        return Forecast(
            sequence_id=seen.sequence_id,
            events=seen.num_events,
            context=len(seen.times),
            last_time=float(seen.times[-1]),
            last_type=trained_tasks.name_of(int(row.event_type[-1])),
            interval=interval,
            type_probabilities=type_probabilities,
            text=text,
            futures=self._futures(seen, known) if prediction.num_futures else None,
        )

    def _mixed_expert(self, seen: SeenEvents, num_futures: int) -> MixedExpert | None:
        """The expert of a mixture, after the last event."""
        if self._gated is None:
            return None
        assert seen.past is not None
        codes = self._settings.trained_tasks.type_codes
        return MixedExpert(self._gated, seen.past, codes, num_futures)

    def _text(self, row: PackedRow, interval: FloatArray, known: HistoryKeys | None) -> str:
        """Write the text of the next event, without an image.

        Args:
            row: Row of the seen events.
            interval: (1,) interval after the last event.
            known: Kept keys and values of the history.
        """
        ids, layout = self._template.ids, self._template.layout
        time = (ids.time_prediction, *layout.turn, *self._template.time_ids(interval)[0].tolist())
        prompt = (*time, *layout.answer_close, ids.text_start, *layout.turn)
        plain = row.before_question(0, image_pad=ids.image_pad)
        return self._generate(self._loaded.batcher(plain), prompt, known)

    def _futures(
        self, seen: SeenEvents, known: HistoryKeys | None
    ) -> tuple[tuple[FutureEvent, ...], ...]:
        """Draw futures; each contains its events up to the horizon."""
        prediction = self._settings.prediction
        plain = seen.row.before_question(0, image_pad=self._loaded.token_ids.image_pad)
        last_time = float(seen.times[-1])
        futures = self._sample_futures(
            self._loaded.batcher(plain),
            num_futures=prediction.num_futures,
            horizon=prediction.horizon or np.inf,
            max_events=prediction.max_future_events,
            rng=np.random.default_rng(seed_from("futures", self._settings.seed, seen.sequence_id)),
            mixed=self._mixed_expert(seen, prediction.num_futures),
            last_time=last_time,
            known=known,
        )
        return named_futures(futures, futures.types, last_time, self._settings.trained_tasks)
