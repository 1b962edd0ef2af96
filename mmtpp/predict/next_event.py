"""What comes after the last event of a sequence: one forecast, as a distribution and as futures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mmtpp.config.schema import Prediction
from mmtpp.core.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.row import Row
from mmtpp.core.seeds import seed_from
from mmtpp.core.template import Template
from mmtpp.model.generation import TextWriter, WritingSettings
from mmtpp.model.loaded import LoadedModel
from mmtpp.model.next_event_scores import Forecaster
from mmtpp.model.record import Answers
from mmtpp.model.sampling import Roller

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FutureEvent:
    """An event that may come: its time, in the source's unit, and the name of its type."""

    time: float
    type: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a model expects after the last event of a sequence; times in the source's unit.

    Attributes:
        sequence_id: its name.
        events: of the sequence.
        context: events that the model saw, the newest ones.
        last_time: of the last event.
        last_type: name of its type.
        interval: distribution of the wait; None when the model was not asked for times.
        type_probabilities: by name of the type; None when it was not asked for types.
        text: of the next event, where it was wanted.
        futures: events of each drawn future; None where none were wanted.
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
        """Expected wait: what minimises the squared error."""
        return float(self._interval.mean()[0])

    @property
    def median(self) -> float:
        """Wait that is exceeded half of the time: what minimises the absolute error."""
        return self.quantiles((0.5,))[0]

    @property
    def simultaneous(self) -> float:
        """Probability of no wait at all."""
        return float(self._interval.zero[0])

    def quantiles(self, levels: Sequence[float]) -> list[float]:
        """Waits that are not exceeded with these probabilities."""
        return [float(value) for value in self._interval.quantiles(levels)[0]]

    def survival(self, waits: ArrayLike) -> FloatArray:
        """(N,) probabilities that nothing has happened N waits after the last event."""
        return self._at(self._interval.survival, waits)

    def hazard(self, waits: ArrayLike) -> FloatArray:
        """(N,) rates per unit of time at N waits, given that nothing has happened: the intensity
        of the process until the next event."""
        return self._at(self._interval.hazard, waits)

    @property
    def _interval(self) -> IntervalForecasts:
        if self.interval is None:
            raise ValueError("the model was not fine-tuned on tasks.time")
        return self.interval

    @staticmethod
    def _at(function: Callable[[ArrayLike], FloatArray], waits: ArrayLike) -> FloatArray:
        return np.array([float(function([wait])[0]) for wait in np.atleast_1d(waits).tolist()])

    def record(self, quantiles: Sequence[float]) -> dict[str, object]:
        """As a row of the table of ``forecast_schema``."""
        row: dict[str, object] = {
            "sequence_id": self.sequence_id,
            "events": self.events,
            "context": self.context,
            "last_time": self.last_time,
            "last_type": self.last_type,
        }
        if self.interval is not None:
            row["interval_mean"] = self.mean
            row |= dict(zip(map(_quantile, quantiles), self.quantiles(quantiles), strict=True))
            row["simultaneous"] = self.simultaneous
        if self.type_probabilities is not None:
            row["type"] = self.type
            row["type_probabilities"] = [
                {"type": name, "probability": chance}
                for name, chance in self.type_probabilities.items()
            ]
        if self.text is not None:
            row["text"] = self.text
        if self.futures is not None:
            row["futures"] = [
                [{"time": event.time, "type": event.type} for event in future]
                for future in self.futures
            ]
        return row


def forecast_schema(answers: Answers, prediction: Prediction) -> pa.Schema:
    """The columns of the forecasts of a model.

    Times are in the source's unit; ``events`` of the sequence, ``context`` of them seen by the
    model; ``simultaneous`` the probability of no wait at all.
    """
    fields = [
        ("sequence_id", pa.string()),
        ("events", pa.int64()),
        ("context", pa.int64()),
        ("last_time", pa.float64()),
        ("last_type", pa.string()),
    ]
    if "time" in answers.tasks:
        names = ("interval_mean", *map(_quantile, prediction.quantiles), "simultaneous")
        fields += [(name, pa.float64()) for name in names]
    if "type" in answers.tasks:
        chance = pa.struct([("type", pa.string()), ("probability", pa.float64())])
        fields += [("type", pa.string()), ("type_probabilities", pa.list_(chance))]
    if prediction.text:
        fields.append(("text", pa.string()))
    if prediction.futures:
        event = pa.struct([("time", pa.float64()), ("type", pa.string())])
        fields.append(("futures", pa.list_(pa.list_(event))))
    return pa.schema(fields)


def _quantile(level: float) -> str:
    return f"interval_q{100 * level:g}"


@dataclass(frozen=True, slots=True)
class SeenEvents:
    """The events of a sequence that a model sees, the newest.

    Attributes:
        sequence_id: of the sequence.
        row: with a question about the event after the last.
        events: of the whole sequence.
        times: (E,) of the events seen, in the source's unit.
    """

    sequence_id: str
    row: Row
    events: int
    times: FloatArray


class NextEvent:
    """Forecasts the event after the last of a sequence.

    Args:
        loaded: the model.
        template: that rows are written with.
        answers: what the model was asked in training.
        grid: of the interval forecasts.
        prediction: what is wanted.
        writing: how texts are written.
        seed: of the futures, with the sequence's name.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        template: Template,
        answers: Answers,
        grid: IntervalGrid,
        prediction: Prediction,
        writing: WritingSettings,
        seed: int,
    ) -> None:
        self._loaded, self._template = loaded, template
        self._answers, self._prediction, self._seed = answers, prediction, seed
        type_ids = loaded.vocabulary.type_ids(answers.type_codes)
        self._forecaster = Forecaster(loaded.model, loaded.token_ids, type_ids, grid)
        self._write = TextWriter(loaded.model, loaded.vocabulary, writing)
        self._roller = Roller(
            loaded.model,
            template,
            answers.type_codes,
            type_ids,
            grid,
            joint="joint" in answers.tasks,
        )

    def __call__(self, seen: SeenEvents) -> Forecast:
        """Forecast what follows."""
        row, wanted = seen.row, self._prediction
        found = self._forecaster(row, self._loaded.batcher(row))
        last_time = float(seen.times[-1])
        chances: dict[str, float] | None = None
        if found.type is not None:
            each = np.exp(found.type.log_probability[0]).tolist()
            chances = dict(
                zip(map(self._answers.name_of, self._answers.type_codes), each, strict=True)
            )
        interval = found.time.interval if found.time is not None else None
        text = None
        if wanted.text:
            assert interval is not None
            text = self._text(row, interval.quantiles((0.5,))[0])
        return Forecast(
            seen.sequence_id,
            seen.events,
            len(seen.times),
            last_time,
            self._answers.name_of(int(row.event_type[-1])),
            interval,
            chances,
            text,
            self._futures(seen, last_time) if wanted.futures else None,
        )

    def _text(self, row: Row, interval: FloatArray) -> str:
        """The text of the next event, (1,) after the last; without an image."""
        ids, layout = self._template.ids, self._template.layout
        time = (ids.time_prediction, *layout.turn, *self._template.time_ids(interval)[0].tolist())
        prompt = (*time, *layout.answer_close, ids.text_start, *layout.turn)
        plain = row.before_question(0, image_pad=ids.image_pad)
        return self._write(self._loaded.batcher(plain), prompt)

    def _futures(self, seen: SeenEvents, last_time: float) -> tuple[tuple[FutureEvent, ...], ...]:
        """The events of each future up to the horizon."""
        plain = seen.row.before_question(0, image_pad=self._loaded.token_ids.image_pad)
        found = self._roller(
            self._loaded.batcher(plain),
            num_futures=self._prediction.futures,
            horizon=self._prediction.horizon or np.inf,
            max_events=self._prediction.max_future_events,
            rng=np.random.default_rng(seed_from("futures", self._seed, seen.sequence_id)),
        )
        times = last_time + np.cumsum(found.intervals, axis=1)
        return tuple(
            tuple(
                FutureEvent(float(time), self._answers.name_of(int(kind)))
                for time, kind, is_within in zip(*future, strict=True)
                if is_within
            )
            for future in zip(times, found.types, found.is_within, strict=True)
        )
