"""Laws of the watermark and of held events, with a clock that the test moves."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.events import Rejected
from mmtpp.data.sources.reader import ReadCounts
from mmtpp.stream.arrivals import Arrival
from mmtpp.stream.commit_record import StreamCounts
from mmtpp.stream.held_events import HeldEvents, no_events
from mmtpp.stream.intake import Intake
from mmtpp.stream.landed_events import EVENT_SCHEMA, as_landed, from_landed
from mmtpp.stream.source_positions import Positions
from mmtpp.stream.watermark import Watermark


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _events(*rows: tuple[str, float], text: str = "") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"sequence": name, "time": time, "type": "a", "text": f"{text}{place}", "split": ""}
            for place, (name, time) in enumerate(rows)
        ],
        EVENT_SCHEMA,
    )


def _arrival(*rows: tuple[str, float], partition: str = "", text: str = "") -> Arrival:
    return Arrival(partition, _events(*rows, text=text), [], ReadCounts(len(rows)))


def _intake(lateness: float = 0.0) -> Intake:
    watermark = Watermark(lateness, 10.0, {}, _Clock())
    return Intake(HeldEvents(no_events()), StreamCounts(), -math.inf, watermark)


def _times(table: pa.Table) -> list[tuple[str, float]]:
    return [(row["sequence"], row["time"]) for row in table.to_pylist()]


def test_the_watermark_waits_for_the_slowest_partition():
    clock = _Clock()
    watermark = Watermark(5.0, 10.0, {}, clock)
    names = ["0", "1"]
    watermark.observe("0", 50.0)
    assert watermark.value(names, set()) == -math.inf  # the other one has had no event
    watermark.observe("1", 30.0)
    assert watermark.value(names, set()) == 25.0
    watermark.observe("1", 20.0)  # a time that jumps back
    assert watermark.value(names, set()) == 25.0
    assert watermark.value(names, {"1"}) == 45.0
    assert watermark.value(names, {"0", "1"}) == math.inf


def test_a_partition_is_silent_after_a_time_without_events():
    clock = _Clock()
    watermark = Watermark(5.0, 10.0, {"0": 3.0, "1": 4.0}, clock)
    names = ["0", "1", "empty"]
    assert watermark.silent(names) == {"empty"}  # it never had an event
    clock.now += 9
    watermark.observe("1", None)  # rejected records are no silence
    clock.now += 1
    assert watermark.silent(names) == {"0", "empty"}
    clock.now += 9
    watermark.observe("empty", 8.0)
    assert watermark.silent(names) == {"0", "1"}


def test_events_are_released_by_sequence_in_order_of_time_and_of_arrival():
    intake = _intake(lateness=2.0)
    intake.take(_arrival(("b", 5.0), ("a", 4.0), ("a", 4.0), text="first "))
    intake.take(_arrival(("a", 3.0), ("b", 7.0), text="second "))
    released = intake.release([""], set())
    assert _times(released) == [("a", 3.0), ("a", 4.0), ("a", 4.0), ("b", 5.0)]
    assert released["text"].to_pylist() == ["second 0", "first 1", "first 2", "first 0"]
    assert _times(intake.held.table()) == [("b", 7.0)]
    assert intake.released_to == 5.0


def test_an_event_before_the_released_time_is_late_and_one_at_it_is_not():
    intake = _intake()
    intake.take(_arrival(("a", 5.0)))
    assert _times(intake.release([""], set())) == [("a", 5.0)]
    intake.take(_arrival(("a", 4.9), ("b", 5.0), ("a", 6.0)))
    assert _times(intake.release([""], set())) == [("a", 6.0), ("b", 5.0)]
    assert _times(intake.take_late()) == [("a", 4.9)]
    assert len(intake.take_late()) == 0
    assert (intake.counts.events_landed, intake.counts.events_late) == (3, 1)


def test_without_any_partition_to_wait_for_everything_is_released():
    intake = _intake(lateness=100.0)
    intake.take(_arrival(("a", 5.0), ("b", 9.0)))
    assert len(intake.release([""], set())) == 0
    assert len(intake.release([""], {""})) == 2
    assert intake.released_to == 9.0
    assert len(intake.release([""], {""})) == 0
    assert intake.released_to == 9.0


def test_the_earlier_half_is_released_when_no_more_can_be_held(caplog):
    intake = _intake(lateness=100.0)
    intake.take(_arrival(*(("a", float(time)) for time in (6, 2, 4, 8, 10))))
    assert _times(intake.release_early()) == [("a", 2.0), ("a", 4.0), ("a", 6.0)]
    assert intake.counts.events_released_early == 3
    assert "stream.max_held_events is reached" in caplog.text


def test_rejected_records_are_counted_by_cause_with_the_events_of_files():
    intake = _intake()
    records = [
        Rejected("f", 0, "missing_time", "", ""),
        Rejected("g", -1, "malformed_file", "", "", events=7),
    ]
    intake.take(Arrival("", no_events(), records, ReadCounts(8, left_out={"gift": 2})))
    assert intake.counts.rejected_by_cause == {"missing_time": 1, "malformed_file": 7}
    assert (intake.counts.events_read, intake.counts.events_rejected) == (8, 8)
    assert intake.counts.left_out_by_kind == {"gift": 2}
    assert intake.take_rejected()["events"].to_pylist() == [1, 7]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=6), max_size=12
    ),
    st.integers(0, 15),
)
def test_each_event_is_landed_in_order_or_late(batches: list[list], lateness: int):
    """Whatever arrives, and however it is held: each event once, landed times never go back."""
    intake = _intake(float(lateness))
    landed, late, sent = [], [], []
    for number, batch in enumerate(batches):
        rows = [(name, float(time)) for name, time in batch]
        arrival = _arrival(*rows, text=f"{number} ")
        sent += arrival.events.to_pylist()
        intake.take(arrival)
        landed.append(intake.release([""], set()))
        late.append(intake.take_late())
    landed.append(intake.release([""], {""}))
    of_landed = [row for table in landed for row in table.to_pylist()]
    of_late = [row for table in late for row in table.to_pylist()]
    assert sorted(map(str, of_landed + of_late)) == sorted(map(str, sent))
    for name in "abc":
        times = [row["time"] for row in of_landed if row["sequence"] == name]
        assert times == sorted(times)
    newest = -math.inf
    could_be_late = set()
    for number, batch in enumerate(batches):
        for place, (_, time) in enumerate(batch):
            if time < newest - lateness:  # only an event beyond the allowed lateness
                could_be_late.add(f"{number} {place}")
        newest = max([newest, *(time for _, time in batch)])
    assert {row["text"] for row in of_late} == could_be_late


@pytest.mark.parametrize(("are_dates", "unit", "landed"), [(True, 60.0, 120.0), (False, 60.0, 2.0)])
def test_dates_are_landed_in_seconds(are_dates: bool, unit: float, landed: float):
    table = as_landed(_events(("a", 2.0)), times_are_dates=are_dates, seconds_per_unit=unit)
    assert table["time"].to_pylist() == [landed]
    back = from_landed(table, times_are_dates=are_dates, seconds_per_unit=unit)
    assert back["time"].to_pylist() == [2.0]


def test_positions_are_taken_whole_or_as_changes():
    positions = Positions({"a": 1})
    assert not positions.have_changed
    positions.set("b", 2)
    assert positions.have_changed
    assert positions.take(whole=False) == {"b": 2}
    assert positions.take(whole=False) == {}
    positions.set("c", 3)
    assert positions.take(whole=True) == {"a": 1, "b": 2, "c": 3}
    assert not positions.have_changed
