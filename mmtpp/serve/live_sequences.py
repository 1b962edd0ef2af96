"""Live sequences: their events in a log, and a model that forecasts what follows.

A request to append is carried out as a whole: each of its events is accepted, recognised as one
that was accepted before, or rejected for a cause that is named and counted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmtpp.core.errors import MmtppError, ModelError
from mmtpp.core.events import EventSequence
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.event_log import EventLog, SequenceHead, head_after
from mmtpp.serve.live_events import EventReader, LiveEvent, RejectedEvent, to_sequence
from mmtpp.serve.live_model import ForecastRequest, LiveModel


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that is in the log.

    Attributes:
        sequence_id: Name of its sequence.
        position: Its position in the sequence, from 0; None for an event whose key the sequence
            had before.
    """

    sequence_id: str
    position: int | None

    @property
    def is_repeated(self) -> bool:
        """Whether the event had been accepted before."""
        return self.position is None


Outcome = Accepted | RejectedEvent


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """New events.

    Attributes:
        events: JSON objects, at least one, see ``EventReader``; they are appended in this order.
        after: Number of events that the sequence must have before; None for any. Only for events of
            one sequence, and with ``all_or_none``.
        all_or_none: Whether one rejected event rejects the others with it.
    """

    events: Sequence[object]
    after: int | None = None
    all_or_none: bool = False


@dataclass(slots=True)
class _Pending:
    """The events of several requests that are about to be written.

    Attributes:
        heads: The ends of the sequences, these events included.
        events: Positions and events.
        keyed: The events by sequence and key.
    """

    heads: dict[str, SequenceHead]
    events: list[tuple[int, LiveEvent]] = field(default_factory=list)
    keyed: dict[tuple[str, str], LiveEvent] = field(default_factory=dict)


class LiveSequences:
    """Appends events to sequences and forecasts what follows.

    Args:
        log: The log of events.
        model: The model.
        max_text: Largest length of a text, in characters.

    Raises:
        StorageError: The log belongs to other types or another time unit.
        ModelError: The model does not know a type of the log.
    """

    def __init__(self, log: EventLog, model: LiveModel, *, max_text: int) -> None:
        self.log, self._max_text = log, max_text
        self.replace_model(model)

    def replace_model(self, model: LiveModel) -> None:
        """Forecast with another model from now on.

        Raises:
            StorageError: The model has other types or another time unit than the events of the log.
            ModelError: The model cannot read a type of these events.
        """
        trained_tasks = model.forecaster.trained_tasks
        self.log.claim(
            {
                "type_names": json.dumps(list(trained_tasks.type_names), ensure_ascii=False),
                "seconds_per_unit": repr(trained_tasks.seconds_per_unit),
            }
        )
        unknown = sorted(self.log.type_codes() - model.known_codes)
        if unknown:
            names = ", ".join(map(trained_tasks.name_of, unknown))
            raise ModelError(
                f"the log has events of types that the model does not know: {names}",
                where=f"{model.forecaster.path}; {self.log.path}",
                cause="these types did not occur in the store that the model was trained on",
                setting="model_uri, or another state_folder",
            )
        self.model = model
        self._reader = EventReader(trained_tasks, model.known_codes, max_text=self._max_text)

    def append(self, requests: Sequence[AppendRequest]) -> list[list[Outcome]]:
        """Append the events of requests, in one write to the disk.

        Args:
            requests: Requests in the order in which they came.

        Returns:
            The outcome of each event of each request.

        Raises:
            StorageError: The events could not be written; none was accepted.
        """
        parsed = [[self._reader.read(raw) for raw in request.events] for request in requests]
        names = {
            event.sequence_id
            for events in parsed
            for event in events
            if isinstance(event, LiveEvent)
        }
        pending = _Pending(self.log.heads(sorted(names)))
        before = dict(pending.heads)
        outcomes = [
            self._place(request, events, pending)
            for request, events in zip(requests, parsed, strict=True)
        ]
        if pending.events:
            self.log.append(pending.events)
            self._advance(_added(pending.events, before))
        return outcomes

    def forecast(self, requests: Sequence[ForecastRequest]) -> list[Forecast | MmtppError | None]:
        """Forecast the event after the last one of each sequence.

        Args:
            requests: What is asked.

        Returns:
            A forecast for each request, the reason why the model cannot answer it, or None for a
            sequence without events.
        """
        heads = self.log.heads(sorted({request.sequence_id for request in requests}))
        known = [
            index for index, request in enumerate(requests) if heads[request.sequence_id].num_events
        ]
        answers: list[Forecast | MmtppError | None] = [None] * len(requests)
        if known:
            forecasts = self.model.forecast([requests[index] for index in known], self.log.read)
            for index, forecast in zip(known, forecasts, strict=True):
                answers[index] = forecast
        return answers

    def remove(self, sequence_id: str) -> int:
        """Remove a sequence; returns the number of its events."""
        self.model.remove(sequence_id)
        return self.log.remove(sequence_id)

    def _advance(self, added: Mapping[str, tuple[int, EventSequence]]) -> None:
        """Pass events of the log on to the model; what fails is read again from the log."""
        try:
            self.model.advance(added)
        except BaseException:
            for name in added:
                self.model.remove(name)
            raise

    def _place(
        self,
        request: AppendRequest,
        events: Sequence[LiveEvent | RejectedEvent],
        pending: _Pending,
    ) -> list[Outcome]:
        """Give the events of a request their places after those that are pending."""
        num_pending = len(pending.events)
        first = events[0]
        if request.after is not None and isinstance(first, LiveEvent):
            head = pending.heads[first.sequence_id]
            if head.num_events != request.after:
                events = [_wrong_position(request.after, head), *events[1:]]
        outcomes: list[Outcome] = [
            self._place_event(event, pending) if isinstance(event, LiveEvent) else event
            for event in events
        ]
        rejected = [outcome for outcome in outcomes if isinstance(outcome, RejectedEvent)]
        if rejected and request.all_or_none:
            self._take_back(pending, num_pending)
            with_others = RejectedEvent(
                "rejected_with_others", f"another event of the request: {rejected[0].message}"
            )
            outcomes = [
                outcome if isinstance(outcome, RejectedEvent) else with_others
                for outcome in outcomes
            ]
        return outcomes

    def _take_back(self, pending: _Pending, num_kept: int) -> None:
        """Remove the pending events after the first ones."""
        removed = pending.events[num_kept:]
        del pending.events[num_kept:]
        for _, event in removed:
            pending.keyed.pop((event.sequence_id, event.key), None)
        ends = {event.sequence_id: head_after(place, event) for place, event in pending.events}
        for name in {event.sequence_id for _, event in removed}:
            pending.heads[name] = ends.get(name) or self.log.heads([name])[name]

    def _place_event(self, event: LiveEvent, pending: _Pending) -> Outcome:
        name, head = event.sequence_id, pending.heads[event.sequence_id]
        if event.key:
            known = pending.keyed.get((name, event.key)) or self.log.with_key(name, event.key)
            if known is not None:
                if known.has_content_of(event):
                    return Accepted(name, None)
                return RejectedEvent(
                    "key_in_use", f"key {event.key!r} belongs to another event of the sequence"
                )
        if event.time < head.last_time:
            return RejectedEvent(
                "out_of_order",
                f"time is {event.time!r}, before that of the last event, {head.last_time!r}; "
                "events are sent in order of time",
            )
        pending.events.append((head.num_events, event))
        if event.key:
            pending.keyed[name, event.key] = event
        pending.heads[name] = head_after(head.num_events, event)
        return Accepted(name, head.num_events)


def _wrong_position(after: int, head: SequenceHead) -> RejectedEvent:
    return RejectedEvent(
        "wrong_position",
        f"after = {after}, but the sequence has {head.num_events} events; send the events that "
        f"follow number {head.num_events}",
        head.num_events,
    )


def outcome_name(outcome: Outcome) -> str:
    """The name by which outcomes are counted: accepted, repeated, or rejected with the cause."""
    if isinstance(outcome, RejectedEvent):
        return f"rejected/{outcome.cause}"
    return "repeated" if outcome.is_repeated else "accepted"


def _added(
    events: Sequence[tuple[int, LiveEvent]], before: dict[str, SequenceHead]
) -> dict[str, tuple[int, EventSequence]]:
    """The new events by sequence, with the number of events before them."""
    by_name: dict[str, list[LiveEvent]] = {}
    for _, event in events:
        by_name.setdefault(event.sequence_id, []).append(event)
    return {
        name: (before[name].num_events, to_sequence(name, new)) for name, new in by_name.items()
    }
