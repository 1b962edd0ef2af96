"""The forecast of the event after the last event of a sequence, and its row in a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mmtpp.config.schema import PredictionSection
from mmtpp.core.forecasting.futures import Futures
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts
from mmtpp.model.folders.record import TrainedTasks

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
