"""Landed events reach a live service once, whatever happens to requests and jobs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_sequences import LiveSequences
from mmtpp.stream import service_client, service_delivery
from mmtpp.stream.commit_record import CommitRecord
from mmtpp.stream.output_folder import OutputFolder
from mmtpp.stream.service_client import ServiceClient
from mmtpp.stream.stream_job import stream
from tests.helpers.live_models import expert_forecaster
from tests.helpers.live_service import LiveService, live_service
from tests.helpers.streams import add_file, event, stream_config, times_of


@pytest.fixture(scope="module")
def model():
    return build_live_model(expert_forecaster(), max_sequences=10)


@pytest.fixture
def service(model) -> Iterator[LiveService]:
    live = LiveSequences(EventLog(IN_MEMORY), model, max_text=100)
    with live_service(live) as running:
        yield running


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service_delivery, "RETRY_S", 0.02)
    monkeypatch.setattr(ServiceClient.__init__, "__defaults__", (lambda _: None,))


def _rows(start: int, number: int) -> list[dict]:
    names = ("alarm", "repair", "check")
    return [event(f"s{n % 2}", n, f"note {n}", names[n % 3]) for n in range(start, start + number)]


def _config(tmp_path: Path, service: LiveService, **changes):
    settings = {"stream.service": service.url, **changes}
    return stream_config(tmp_path / "incoming", tmp_path / "landed", **settings)


def _check_delivered(tmp_path: Path, service: LiveService) -> None:
    for name, times in times_of(tmp_path / "landed").items():
        assert service.times(name) == times


def test_events_are_delivered_in_order(tmp_path: Path, service: LiveService):
    token = tmp_path / "token"
    token.write_text("secret\n")
    add_file(tmp_path / "incoming", "a.jsonl", _rows(0, 1200))
    settings = {"stream.service_token_file": str(token)}
    report = stream(_config(tmp_path, service, **settings))
    assert (report["events_delivered"], report["events_undelivered"]) == (1200, 0)
    _check_delivered(tmp_path, service)
    assert [len(body["events"]) for body in service.bodies] == [500, 500, 200]
    assert service.bodies[0]["events"][0] == {
        "sequence": "s0",
        "time": 0.0,
        "type": "alarm",
        "text": "note 0",
        "key": "1:0",
    }
    assert set(service.headers) == {"Bearer secret"}
    add_file(tmp_path / "incoming", "b.jsonl", _rows(1200, 3))
    assert stream(_config(tmp_path, service))["events_delivered"] == 1203
    assert len(service.bodies) == 4  # nothing is delivered again


@pytest.mark.parametrize("fault", [0, 503, 408, 409, 500])
def test_a_request_without_an_answer_is_sent_again(
    tmp_path: Path, service: LiveService, fault: int
):
    service.faults = [200, *([fault] * 4)]
    add_file(tmp_path / "incoming", "a.jsonl", _rows(0, 700))
    # a busy machine needs longer than the idle time of the other tests for four more attempts
    report = stream(_config(tmp_path, service, **{"stream.stop_when_idle_seconds": 2.0}))
    assert (report["events_delivered"], report["events_refused"]) == (700, {})
    _check_delivered(tmp_path, service)
    assert len(service.bodies) > 5


def test_a_job_that_dies_while_it_delivers_is_followed_by_one_that_continues(
    tmp_path: Path, service: LiveService, monkeypatch: pytest.MonkeyPatch
):
    class KilledError(BaseException):
        pass

    original = ServiceClient.append
    calls: list[int] = []

    def append(self, events):
        calls.append(len(events))
        rejected = original(self, events)
        if len(calls) == 2:  # the answer is lost with the job
            raise KilledError
        return rejected

    add_file(tmp_path / "incoming", "a.jsonl", _rows(0, 1200))
    with monkeypatch.context() as patched:
        patched.setattr(ServiceClient, "append", append)
        with pytest.raises(KilledError):
            stream(_config(tmp_path, service))
    assert len(service.times("s0")) + len(service.times("s1")) == 1000
    report = stream(_config(tmp_path, service))
    assert report["events_delivered"] == 1200
    _check_delivered(tmp_path, service)


def test_refused_events_are_counted_and_kept(tmp_path: Path, service: LiveService):
    rows = [*_rows(0, 4), event("s0", 10, "", "unseen"), event("s0", 11, "n" * 200, "alarm")]
    add_file(tmp_path / "incoming", "a.jsonl", rows)
    report = stream(_config(tmp_path, service))
    assert report["events_refused"] == {"unknown_type": 1, "long_text": 1}
    assert report["events_delivered"] == 4
    [kept] = (tmp_path / "landed" / "refused").glob("*.jsonl")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(line["time"], line["cause"]) for line in lines] == [
        (10.0, "unknown_type"),
        (11.0, "long_text"),
    ]
    assert all(line["message"] for line in lines)


def test_requests_that_are_too_large_are_divided(tmp_path: Path, service: LiveService):
    service.max_events = 100
    add_file(tmp_path / "incoming", "a.jsonl", [*_rows(0, 450), event("s0", 450, "", "unseen")])
    report = stream(_config(tmp_path, service))
    assert (report["events_delivered"], report["events_refused"]) == (450, {"unknown_type": 1})
    assert service.times("s0") == [float(n) for n in range(0, 450, 2)]
    service.max_events = 0
    add_file(tmp_path / "incoming", "b.jsonl", _rows(500, 2))
    report = stream(_config(tmp_path, service))
    assert report["events_refused"] == {"unknown_type": 1, "too_large": 2}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_token_or_address_stops_the_job_and_nothing_is_refused(
    tmp_path: Path, service: LiveService, status: int
):
    service.faults = [status]
    add_file(tmp_path / "incoming", "a.jsonl", _rows(0, 4))
    with pytest.raises(ConfigError, match=f"status {status}") as caught:
        stream(_config(tmp_path, service))
    assert caught.value.where == service.url
    assert "stream.service_token_file" in caught.value.setting
    assert stream(_config(tmp_path, service))["events_delivered"] == 4


def test_a_service_of_another_version_is_an_error(tmp_path: Path, service: LiveService):
    service.faults = [418]
    add_file(tmp_path / "incoming", "a.jsonl", _rows(0, 4))
    with pytest.raises(StorageError, match="status 418"):
        stream(_config(tmp_path, service))


def test_reading_pauses_while_the_service_is_away(
    tmp_path: Path, service: LiveService, caplog: pytest.LogCaptureFixture
):
    service.faults = [503] * 30
    for number in range(4):
        add_file(tmp_path / "incoming", f"{number}.jsonl", _rows(10 * number, 10))
    read_while_away: list[int] = []
    original = service.append

    def append(body: dict) -> tuple[int, dict]:
        if not read_while_away:
            records = sorted((tmp_path / "landed" / "commits").glob("*.json"))
            last = CommitRecord.from_json(records[-1].read_bytes(), where="")
            read_while_away.append(last.counts.events_read)
        return original(body)

    service.append = append  # type: ignore[method-assign]
    report = stream(_config(tmp_path, service, **{"stream.max_held_events": 15}))
    assert read_while_away == [20]  # two files: the second was begun below the limit
    assert (report["events_delivered"], report["events_released_early"]) == (40, 0)
    _check_delivered(tmp_path, service)
    assert "reading pauses: 0 events are held and 20 are not delivered" in caplog.text


def test_a_job_that_ends_without_the_service_is_an_error_and_the_next_one_delivers(
    tmp_path: Path, service: LiveService
):
    service.faults = [503] * 10_000
    add_file(tmp_path / "incoming", "a.jsonl", _rows(0, 4))
    with pytest.raises(StorageError, match="4 landed events are not delivered") as caught:
        stream(_config(tmp_path, service))
    assert caught.value.where == str(tmp_path / "landed")
    service.faults = []
    assert stream(_config(tmp_path, service))["events_delivered"] == 4
    _check_delivered(tmp_path, service)
    output = OutputFolder(str(tmp_path / "landed"))
    last = output.records()[-1]
    assert last.delivered in (last.number, last.number - 1)  # the commit that notes the delivery
    output.close()


def test_nothing_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    client = ServiceClient("http://127.0.0.1:1", "", lambda _: None)
    with pytest.raises(service_client.ServiceAwayError) as caught:
        client.append([{"sequence": "a"}])
    assert caught.value.where == "http://127.0.0.1:1"
    assert caught.value.cause
    assert caught.value.setting == "stream.service = http://127.0.0.1:1"
