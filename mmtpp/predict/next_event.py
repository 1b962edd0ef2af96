"""Forecast the event after the last event of a sequence, and sample futures of several events."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mmtpp.config.schema import PredictionSection
from mmtpp.core.forecasting.futures import Futures
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
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

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FutureEvent:
    """An event of a sampled future.

    Attributes:
        time: Time of the event, in the source's unit.
        type: Name of the event's type.
    """

    time: float
    type: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast of the event after the last event of a sequence; times in the source's unit.

    Attributes:
        sequence_id: Name of the sequence.
        events: Number of events of the sequence.
        context: Number of events that the model saw, the newest ones.
        last_time: Time of the last event.
        last_type: Name of the last event's type.
        interval: Distribution of the interval; None where the model does not forecast times.
        type_probabilities: Probabilities by name of the type; None where the model does not
            forecast types.
        text: Written text of the next event; None where no text was requested.
        futures: Events of each sampled future; None where no futures were requested.
    """

    sequence_id: str
    events: int
    context: int
    last_time: float
    last_type: str
    interval: IntervalForecasts | None
    type_probabilities: Mapping[str, float] | None
    text: str | None = None
    futures: tuple[tuple[FutureEvent, ...], ...] | None = None

    @property
    def type(self) -> str:
        """The most likely type."""
        if self.type_probabilities is None:
            raise ValueError("the model was not fine-tuned on tasks.type")
        return max(self.type_probabilities, key=self.type_probabilities.__getitem__)

    @property
    def mean(self) -> float:
        """Mean interval, which minimises the expected squared error."""
        return float(self._known_interval.mean()[0])

    @property
    def median(self) -> float:
        """Median interval, which minimises the expected absolute error."""
        return self.quantiles((0.5,))[0]

    @property
    def simultaneous(self) -> float:
        """Probability that the next event has the same time as the last one."""
        return float(self._known_interval.zero[0])

    def quantiles(self, levels: Sequence[float]) -> list[float]:
        """Quantiles of the interval.

        Args:
            levels: Probabilities of the quantiles, above 0 and below 1.
        """
        return [float(value) for value in self._known_interval.quantiles(levels)[0]]

    def survival(self, waits: ArrayLike) -> FloatArray:
        """Probability that no event has occurred until a time after the last event.

        Args:
            waits: (N,) times after the last event.

        Returns:
            (N,) probabilities.
        """
        return self._at(self._known_interval.survival, waits)

    def hazard(self, waits: ArrayLike) -> FloatArray:
        """Rate of the next event given that it has not occurred: the intensity of the process.

        Args:
            waits: (N,) times after the last event.

        Returns:
            (N,) rates per unit of time.
        """
        return self._at(self._known_interval.hazard, waits)

    @property
    def _known_interval(self) -> IntervalForecasts:
        if self.interval is None:
            raise ValueError("the model was not fine-tuned on tasks.time")
        return self.interval

    @staticmethod
    def _at(function: Callable[[ArrayLike], FloatArray], waits: ArrayLike) -> FloatArray:
        """Values of a function of the forecast, one time after the other."""
        return np.array([float(function([wait])[0]) for wait in np.atleast_1d(waits).tolist()])

    def as_row(self, quantiles: Sequence[float]) -> dict[str, object]:
        """The forecast as a row of the table of ``forecast_schema``.

        Args:
            quantiles: Probabilities of the interval's quantiles.
        """
        return forecast_rows([self], quantiles)[0]


def forecast_rows(
    forecasts: Sequence[Forecast], quantiles: Sequence[float]
) -> list[dict[str, object]]:
    """Forecasts of one model as rows of the table of ``forecast_schema``.

    Args:
        forecasts: The forecasts, at least one.
        quantiles: Probabilities of the interval's quantiles.
    """
    intervals = [forecast.interval for forecast in forecasts if forecast.interval is not None]
    names, values = (), [[]] * len(forecasts)
    if intervals:
        joined = IntervalForecasts.join(intervals)
        names = ("interval_mean", *map(_quantile_name, quantiles), "simultaneous")
        columns = (joined.mean()[:, None], joined.quantiles(quantiles), joined.zero[:, None])
        values = np.concatenate(columns, axis=1).tolist()
    return [
        _row(forecast, dict(zip(names, of_interval, strict=True)))
        for forecast, of_interval in zip(forecasts, values, strict=True)
    ]


def _row(forecast: Forecast, interval: Mapping[str, float]) -> dict[str, object]:
    """The row of a forecast, given the columns of its interval."""
    row: dict[str, object] = {
        "sequence_id": forecast.sequence_id,
        "events": forecast.events,
        "context": forecast.context,
        "last_time": forecast.last_time,
        "last_type": forecast.last_type,
        **interval,
    }
    if forecast.type_probabilities is not None:
        row["type"] = forecast.type
        row["type_probabilities"] = [
            {"type": name, "probability": chance}
            for name, chance in forecast.type_probabilities.items()
        ]
    if forecast.text is not None:
        row["text"] = forecast.text
    if forecast.futures is not None:
        row["futures"] = [
            [{"time": event.time, "type": event.type} for event in future]
            for future in forecast.futures
        ]
    return row


def forecast_schema(trained_tasks: TrainedTasks, prediction: PredictionSection) -> pa.Schema:
    """The columns of a table of forecasts.

    Times are in the source's unit. ``events`` is the number of events of the sequence, ``context``
    the number of events that the model sees, and ``simultaneous`` the probability that the next
    event has the same time as the last one.

    Args:
        trained_tasks: Tasks that the model was trained on.
        prediction: Section ``prediction`` of the settings.
    """
    fields = [
        ("sequence_id", pa.string()),
        ("events", pa.int64()),
        ("context", pa.int64()),
        ("last_time", pa.float64()),
        ("last_type", pa.string()),
    ]
    if "time" in trained_tasks.tasks:
        names = ("interval_mean", *map(_quantile_name, prediction.quantiles), "simultaneous")
        fields += [(name, pa.float64()) for name in names]
    if "type" in trained_tasks.tasks:
        chance = pa.struct([("type", pa.string()), ("probability", pa.float64())])
        fields += [("type", pa.string()), ("type_probabilities", pa.list_(chance))]
    if prediction.generate_text:
        fields.append(("text", pa.string()))
    if prediction.num_futures:
        event = pa.struct([("time", pa.float64()), ("type", pa.string())])
        fields.append(("futures", pa.list_(pa.list_(event))))
    return pa.schema(fields)


def _quantile_name(level: float) -> str:
    return f"interval_q{100 * level:g}"


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


def named_probabilities(
    log_probability: FloatArray, trained_tasks: TrainedTasks
) -> dict[str, float]:
    """Probabilities by name of the type.

    Args:
        log_probability: (K,) logarithms of the probabilities of ``trained_tasks.type_codes``.
        trained_tasks: Codes and names of the types.
    """
    names = map(trained_tasks.name_of, trained_tasks.type_codes)
    return dict(zip(names, np.exp(log_probability).tolist(), strict=True))


def named_futures(
    futures: Futures,
    type_codes: NDArray[np.integer],
    last_time: float,
    trained_tasks: TrainedTasks,
) -> tuple[tuple[FutureEvent, ...], ...]:
    """Events of sampled futures up to their horizon, with times and names of types.

    Args:
        futures: N sampled futures of S events.
        type_codes: (N, S) codes of their types.
        last_time: Time of the last event before them, in the source's unit.
        trained_tasks: Names of the types.
    """
    times = last_time + np.cumsum(futures.intervals, axis=1)
    return tuple(
        tuple(
            FutureEvent(float(time), trained_tasks.name_of(int(code)))
            for time, code, is_within in zip(*future, strict=True)
            if is_within
        )
        for future in zip(times, type_codes, futures.is_within, strict=True)
    )
