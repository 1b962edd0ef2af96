"""New events as clients write them: every wrong one is rejected for a cause that is named."""

import math

import pytest

from mmtpp.serve.live_events import EventReader, LiveEvent, RejectedEvent
from tests.helpers.live_models import KNOWN, expert_forecaster

EVENT = {"sequence": "s", "time": 1.5, "type": "alarm"}


@pytest.fixture(scope="module")
def reader() -> EventReader:
    return EventReader(expert_forecaster().trained_tasks, frozenset(KNOWN), max_text=5)


def test_names_codes_and_dates_are_read(reader: EventReader):
    assert reader.read(EVENT) == LiveEvent("s", 1.5, 0)
    full = {**EVENT, "type": 3, "text": "hi", "key": "k", "time": "1970-01-02T00:00:01Z"}
    assert reader.read(full) == LiveEvent("s", 86401.0, 3, "hi", "k")
    assert reader.read({**EVENT, "text": None, "key": None}) == LiveEvent("s", 1.5, 0)


@pytest.mark.parametrize(
    ("changes", "cause", "message"),
    [
        ({"sequence": None}, "bad_sequence", "sequence is None"),
        ({"sequence": ""}, "bad_sequence", "1 to 200 characters"),
        ({"sequence": "s" * 201}, "bad_sequence", "1 to 200 characters"),
        ({"sequence": 7}, "bad_sequence", "sequence is 7"),
        ({"time": None}, "missing_time", "time"),
        ({"time": True}, "unreadable_time", "True"),
        ({"time": math.nan}, "unreadable_time", "not finite"),
        ({"time": 10**400}, "unreadable_time", "not finite"),
        ({"time": "yesterday"}, "unreadable_time", "yesterday"),
        ({"time": "03/04/2024"}, "ambiguous_time", "03/04/2024"),
        ({"type": None}, "missing_type", "None"),
        ({"type": "alrm"}, "unknown_type", "alrm"),
        ({"type": 4}, "unknown_type", "4"),
        ({"type": "unseen"}, "unknown_type", "did not occur in the model's training events"),
        ({"type": [1]}, "unreadable_type", "[1]"),
        ({"text": 5}, "bad_text", "a text is a string"),
        ({"text": "\ud800"}, "bad_text", "surrogate"),
        ({"sequence": "\udfff"}, "bad_text", "surrogate"),
        ({"text": "longer"}, "long_text", "max_text = 5"),
        ({"key": ""}, "bad_key", "1 to 200 characters"),
        ({"key": 5}, "bad_key", "key is 5"),
        ({"tpye": 1}, "unknown_field", "'tpye'; the fields are sequence, time, type, text, key"),
    ],
)
def test_a_wrong_event_is_rejected(reader: EventReader, changes: dict, cause: str, message: str):
    rejected = reader.read({**EVENT, **changes})
    assert isinstance(rejected, RejectedEvent)
    assert rejected.cause == cause
    assert message in rejected.message


def test_what_is_no_object_is_rejected(reader: EventReader):
    rejected = reader.read([1])
    assert isinstance(rejected, RejectedEvent)
    assert rejected.cause == "not_an_object"
