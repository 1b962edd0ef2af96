"""Lines of events to lines of forecasts: the program behind ``python -m mmtpp score``."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from mmtpp.core.errors import MmtppError
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.forecast_json import forecasts_to_json
from mmtpp.serve.live_events import RejectedEvent
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import (
    Accepted,
    AppendRequest,
    LiveSequences,
    Outcome,
    outcome_name,
)

MAX_LINE = 2**20
"""Largest length of a line, in bytes."""
_MAX_FORECASTS = 10_000  # of sequences whose next event is scored without another forecast

Answer = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    content: object
    rejected: RejectedEvent | None = None


class Scorer:
    """Scores events: how probable each was, and what follows it.

    Args:
        live: The live sequences.

    Attributes:
        counts: Numbers of accepted and repeated events, and of rejected lines by cause.
    """

    def __init__(self, live: LiveSequences) -> None:
        self._live = live
        self._forecasts: OrderedDict[str, Forecast] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def answer_lines(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Answer JSON lines with JSON lines.

        Args:
            blocks: Parts of a file of JSON lines, as they arrive.

        Yields:
            The answers to the lines that a block completes, a line each.
        """
        for answers in self(blocks):
            lines = (orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE) for answer in answers)
            yield b"".join(lines)

    def __call__(self, blocks: Iterable[bytes]) -> Iterator[list[Answer]]:
        """Answer lines.

        Args:
            blocks: Parts of a file of JSON lines, as they arrive.

        Yields:
            Answers to the lines that each block completes, in their order.
        """
        for lines in _lines(blocks):
            answers: dict[int, Answer] = {}
            for batch in _rounds(lines):
                answers.update(self._answer(batch))
            yield [answers[number] for number in sorted(answers)]

    def _answer(self, lines: list[_Line]) -> dict[int, Answer]:
        """Answer lines of distinct sequences, by the number of the line."""
        readable = [line for line in lines if line.rejected is None]
        before = self._forecasts_before(_names(readable))
        requests = [AppendRequest([line.content]) for line in readable]
        outcomes = [outcome for [outcome] in self._live.append(requests)] if requests else []
        added = [
            outcome.sequence_id
            for outcome in outcomes
            if isinstance(outcome, Accepted) and not outcome.is_repeated
        ]
        after = dict(zip(added, self._forecast(added), strict=True))
        forecasts = [found for found in after.values() if isinstance(found, Forecast)]
        levels = self._live.model.forecaster.config.prediction.quantiles
        as_json = forecasts_to_json(forecasts, quantiles=levels) if forecasts else []
        shown = {str(answer["sequence_id"]): answer for answer in as_json}
        answers: dict[int, Answer] = {}
        for line, outcome in zip(readable, outcomes, strict=True):
            answer = self._answer_to(line, outcome, before, after)
            if "position" in answer and answer["sequence"] in shown:
                answer["forecast"] = shown[str(answer["sequence"])]
            answers[line.number] = answer
        for line in lines:
            if line.rejected is not None:
                answers[line.number] = self._rejection(line, line.rejected)
        return answers

    def _answer_to(
        self,
        line: _Line,
        outcome: Outcome,
        before: dict[str, Forecast],
        after: dict[str, Forecast | MmtppError | None],
    ) -> Answer:
        if isinstance(outcome, RejectedEvent):
            return self._rejection(line, outcome)
        self.counts[outcome_name(outcome)] += 1
        name = outcome.sequence_id
        if outcome.is_repeated:
            return {"line": line.number, "sequence": name, "repeated": True}
        answer: Answer = {"line": line.number, "sequence": name, "position": outcome.position}
        forecast = after[name]
        if not isinstance(forecast, Forecast):
            self._forecasts.pop(name, None)  # the next event is not compared with an older one
            return {**answer, "error": str(forecast)}
        if name in before:
            answer["surprise"] = _surprise(before[name], forecast)
        self._keep(name, forecast)
        return answer

    def _rejection(self, line: _Line, rejected: RejectedEvent) -> Answer:
        self.counts[outcome_name(rejected)] += 1
        return {"line": line.number, "rejected": rejected.cause, "message": rejected.message}

    def _forecasts_before(self, names: list[str]) -> dict[str, Forecast]:
        """The forecasts of the next events of sequences that have events."""
        missing = [name for name in names if name not in self._forecasts]
        known = {name: self._forecasts[name] for name in names if name in self._forecasts}
        forecasts = zip(missing, self._forecast(missing), strict=True)
        return known | {name: found for name, found in forecasts if isinstance(found, Forecast)}

    def _forecast(self, names: list[str]) -> list[Forecast | MmtppError | None]:
        return self._live.forecast([ForecastRequest(name) for name in names])

    def _keep(self, name: str, forecast: Forecast) -> None:
        self._forecasts[name] = forecast
        self._forecasts.move_to_end(name)
        if len(self._forecasts) > _MAX_FORECASTS:
            self._forecasts.popitem(last=False)


def _surprise(before: Forecast, after: Forecast) -> dict[str, float]:
    """How an event compares with the forecast before it.

    Args:
        before: Forecast of the event.
        after: Forecast after the event, which names it.

    Returns:
        ``interval_cdf``, the probability that the event came as early as it did or earlier, and
        ``type_probability``, as far as the model forecasts times and types.
    """
    result: dict[str, float] = {}
    if before.interval is not None:
        interval = after.last_time - before.last_time
        result["interval_cdf"] = float(before.interval.cdf([interval])[0])
    if before.type_probabilities is not None:
        result["type_probability"] = before.type_probabilities.get(after.last_type, 0.0)
    return result


def _names(lines: list[_Line]) -> list[str]:
    names = (line.content.get("sequence") for line in lines if isinstance(line.content, dict))
    return [name for name in names if isinstance(name, str)]


def _rounds(lines: list[_Line]) -> Iterator[list[_Line]]:
    """Lines in batches in which no sequence occurs twice; each sequence keeps its order."""
    batch: list[_Line] = []
    seen: set[str] = set()
    for line in lines:
        [name] = _names([line]) or [""]
        if name in seen:
            yield batch
            batch, seen = [], set()
        batch.append(line)
        if name:
            seen.add(name)
    if batch:
        yield batch


def _lines(blocks: Iterable[bytes]) -> Iterator[list[_Line]]:
    """The complete lines of each block, numbered from 1; empty lines are left out."""
    rest, number, is_skipping = b"", 0, False
    for block in _with_end(blocks):
        *complete, rest = (rest + block).split(b"\n")
        lines: list[_Line] = []
        for raw in complete:
            number += 1
            if is_skipping:  # the end of a line that was rejected
                is_skipping = False
            elif len(raw) > MAX_LINE:
                lines.append(_too_long(number))
            elif raw.strip():
                lines.append(_read(number, raw))
        if len(rest) > MAX_LINE:
            if not is_skipping:
                lines.append(_too_long(number + 1))
            rest, is_skipping = b"", True
        if lines:
            yield lines


def _with_end(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks, and an end of the last line."""
    yield from blocks
    yield b"\n"


def _read(number: int, raw: bytes) -> _Line:
    try:
        return _Line(number, orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        return _Line(number, None, RejectedEvent("not_json", f"not JSON: {error}"))


def _too_long(number: int) -> _Line:
    message = f"the line is longer than {MAX_LINE:,} bytes"
    return _Line(number, None, RejectedEvent("long_line", message))
