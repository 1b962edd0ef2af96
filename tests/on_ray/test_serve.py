"""The Serve application on a real cluster: requests, keys and tokens, killed processes, a page."""

import concurrent.futures
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import ray
import torch
from mlflow.tracking import MlflowClient
from ray import serve
from ray.util.state import list_actors

from cluster.ports import free_ports
from mmtpp.api.forecaster import Forecaster
from mmtpp.expert.expert_folder import load_expert
from mmtpp.predict.forecast_result import Forecast
from mmtpp.serve.app import build
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.forecast_json import forecasts_to_json
from mmtpp.serve.live_model import ForecastRequest
from mmtpp.serve.live_sequences import AppendRequest, LiveSequences
from mmtpp.serve.settings import ServeSettings
from mmtpp.track.logged_model import save_forecaster

LEVELS = (0.05, 0.5, 0.95)


@dataclass
class Service:
    """A running application.

    Attributes:
        url: Its address.
        settings: Its arguments.
        forecaster: Its model.
    """

    url: str
    settings: ServeSettings
    forecaster: Forecaster

    def ask(self, path: str, body: object = None, method: str | None = None, **headers: str):
        """Status and body of an answer."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"content-type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            content = error.read()
            is_json = error.headers.get_content_type() == "application/json"
            return error.code, json.loads(content) if is_json else content.decode()

    def append(self, name: str, events: list[dict], **fields: object):
        """Append events to a sequence."""
        return self.ask(f"/v1/sequences/{quote(name)}/events", {"events": events, **fields})

    def types(self) -> list[str]:
        trained_tasks = self.forecaster.trained_tasks
        return [trained_tasks.name_of(code) for code in trained_tasks.type_codes]

    def events(self, number: int, seed: int) -> list[dict]:
        rng, when = random.Random(seed), 0.0
        events = []
        for _ in range(number):
            when += rng.choice([5.0, 6.0, 60.0])
            events.append({"time": when, "type": rng.choice(self.types()), "text": "at noon"})
        return events

    def check_forecast(self, name: str, events: list[dict]) -> None:
        """Check that a sequence has these events, and the forecast of the whole sequence."""
        levels = "&".join(f"quantiles={level}" for level in LEVELS)
        status, answer = self.ask(f"/v1/sequences/{name}/forecast?{levels}")
        assert status == 200, answer
        columns = ([event[key] for event in events] for key in ("time", "type", "text"))
        times, types, texts = columns
        sequence = self.forecaster.sequence(times, types, texts=texts, sequence_id=name)
        expected = self.forecaster.forecast(sequence).as_row(LEVELS)
        assert answer["events"] == len(events)
        assert answer["last_time"] == events[-1]["time"]
        for column in ("interval_mean", "interval_q5", "interval_q50", "interval_q95"):
            assert answer[column] == pytest.approx(expected[column], rel=1e-4)
        assert answer["type"] == expected["type"]


@pytest.fixture(scope="module")
def service(expert, tmp_path_factory) -> Iterator[Service]:
    folder = str(tmp_path_factory.mktemp("state"))
    settings = ServeSettings(model_uri=expert["model_uri"], state_folder=folder, num_shards=2)
    port = free_ports(["serve"])["serve"]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(settings), name="mmtpp")
    forecaster = Forecaster.from_pretrained(expert["model_uri"])
    yield Service(f"http://127.0.0.1:{port}", settings, forecaster)
    serve.shutdown()


def test_events_are_appended_and_forecast(service: Service):
    events = service.events(9, 0)
    assert service.append("first", events[:4], after=0)[1] == {"accepted": 4, "repeated": 0}
    assert service.append("first", events[4:], after=4)[0] == 200
    service.check_forecast("first", events)
    status, answer = service.ask("/v1/sequences/first/forecast?waits=1&waits=70&futures=2")
    assert status == 200
    assert answer["survival"][0] > answer["survival"][1]
    assert len(answer["hazard"]) == len(answer["futures"]) == 2
    assert answer["model"] == service.settings.model_uri
    shown = service.ask("/v1/sequences/first/events?last=2")[1]["events"]
    assert [event["time"] for event in shown] == [event["time"] for event in events[-2:]]
    assert service.ask("/ready") == (200, {"shards": 2, "models": [service.settings.model_uri]})
    assert service.ask("/health") == (200, {"status": "ok"})


def test_requests_that_cannot_be_answered(service: Service):
    name, [event] = "wrong", service.events(1, 0)
    cases = [
        (f"/v1/sequences/{name}/forecast", None, 404, "has no events"),
        (f"/v1/sequences/{name}/events", {"events": []}, 422, "at least 1 item"),
        (f"/v1/sequences/{name}/events", {"events": [{**event, "tpye": 1}]}, 422, "tpye"),
        (f"/v1/sequences/{name}/events", {"events": [{**event, "type": "?"}]}, 422, "'?'"),
        (f"/v1/sequences/{name}/events", {"events": [event], "after": 3}, 409, "after = 3"),
        (f"/v1/sequences/{name}/events", {"events": [event] * 1001}, 413, "max_events = 1,000"),
        ("/v1/events", {"events": [{"x": "y" * 1_100_000}]}, 413, "max_body_kib"),
        (f"/v1/sequences/{'n' * 201}/forecast", None, 422, "200 characters"),
        (f"/v1/sequences/{name}/forecast?quantiles=1.5", None, 422, "less than 1"),
        (f"/v1/sequences/{name}/forecast?waits=-1", None, 422, "greater than or equal to 0"),
        (f"/v1/sequences/{name}/forecast?futures=201", None, 422, "max_futures = 200"),
        (f"/v1/sequences/{name}/events", {"events": [{**event, "text": "\ud800"}]}, 422, "pair"),
        (f"/v1/sequences/{name}/events", {"events": [{**event, "type": True}]}, 422, "valid"),
        (f"/v1/sequences/{name}/events", {"events": [{**event, "\udfff": 1}]}, 422, "unicode"),
        ("/v1/events", {"events": float("nan")}, 422, "list"),
        ("/v1/nothing", None, 404, "Not Found"),
    ]
    for path, body, expected, message in cases:
        status, answer = service.ask(path, body)
        assert (status, message in json.dumps(answer)) == (expected, True), (path, status, answer)
    assert service.append(name, [event, {**event, "time": event["time"] - 1}])[0] == 409
    assert service.ask(f"/v1/sequences/{name}/forecast")[0] == 404  # nothing was accepted


def test_a_mixed_request_answers_for_each_event(service: Service):
    events = service.events(3, 1)
    mixed = [{"sequence": f"mixed-{index}", **event} for index, event in enumerate(events)]
    status, answer = service.ask("/v1/events", {"events": [*mixed, {}, 5][:4], "forecast": True})
    assert status == 422
    assert answer["accepted"] == 3
    assert [(event["index"], event["cause"]) for event in answer["rejected"]] == [
        (3, "bad_sequence")
    ]
    assert {forecast["sequence_id"] for forecast in answer["forecasts"]} == {
        event["sequence"] for event in mixed
    }
    slash = {**events[0], "sequence": "line 4/unit a"}
    assert service.ask("/v1/events", {"events": [slash]})[0] == 200
    assert service.ask("/v1/sequences/line%204%2Funit%20a/forecast")[0] == 200
    assert service.ask("/v1/sequences/line%204%2Funit%20a", method="DELETE")[0] == 200
    keyed = {**mixed[0], "key": "k", "time": 1e6}
    for expected in ({"accepted": 1, "repeated": 0}, {"accepted": 0, "repeated": 1}):
        status, answer = service.ask("/v1/events", {"events": [keyed]})
        assert (status, answer) == (200, {**expected, "rejected": [], "unknown": []})
    assert service.ask("/v1/sequences/mixed-1", method="DELETE") == (200, {"removed": 1})
    assert service.ask("/v1/sequences/mixed-1", method="DELETE")[0] == 404


def test_metrics_count_events_by_outcome(service: Service):
    service.append("counted", service.events(2, 0))
    [node] = [node for node in ray.nodes() if node["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        if "mmtpp_serve_events" in text and 'outcome="accepted"' in text:
            return
        time.sleep(1)
    pytest.fail("the metrics have no mmtpp_serve_events")


def _actors() -> list[Any]:
    address = ray.get_runtime_context().gcs_address
    return list_actors(address, filters=[("state", "=", "ALIVE")], limit=1000)


def _kill_one(kind: str, application: str = "mmtpp") -> None:
    """Kill the process of a shard or a gateway."""
    actors: list[Any] = list_actors(
        ray.get_runtime_context().gcs_address, filters=[("state", "=", "ALIVE")], limit=1000
    )
    pids = [
        actor.pid
        for actor in actors
        if f"{application}#{kind}" in (actor.name or "")
        and actor.class_name.startswith("ServeReplica")
    ]
    os.kill(random.Random(0).choice(pids), signal.SIGKILL)


def _send(service: Service, name: str, events: list[dict], until: float) -> tuple[int, int]:
    """Send events one by one, again after errors; returns the numbers of events and of retries."""
    sent = retries = 0
    is_unknown = False  # whether the last event may have been accepted without an answer
    while is_unknown or (sent < len(events) and (time.monotonic() < until or sent < 5)):
        try:
            status, answer = service.append(name, [events[sent]], after=sent)
        except (urllib.error.URLError, ConnectionError, TimeoutError, json.JSONDecodeError):
            status, answer = 0, {}
        is_unknown = status not in (200, 409)
        if status == 200:
            sent += 1
        elif status == 409:  # the lost answer of an event that was accepted
            [rejected] = answer["detail"]["rejected"]
            assert rejected["events"] == sent + 1, answer
            sent += 1
        else:
            assert status in (0, 500, 502, 503, 504), (status, answer)
            assert status != 500 or isinstance(answer, str), (
                answer
            )  # of a proxy, not of the program
            retries += 1
            time.sleep(0.2)
    return sent, retries


def test_killed_processes_lose_no_event(service: Service):
    events = {f"chaos-{index}": service.events(2000, index) for index in range(4)}
    until = time.monotonic() + 20
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sending = [
            pool.submit(_send, service, name, of_sequence, until)
            for name, of_sequence in events.items()
        ]
        for kind in ("shard-0", "gateway", "shard-1"):
            time.sleep(5)
            _kill_one(kind)
        sent = [future.result() for future in sending]
    assert sum(retries for _, retries in sent) > 0
    for (name, of_sequence), (number, _) in zip(events.items(), sent, strict=True):
        service.check_forecast(name, of_sequence[:number])


def test_a_killed_process_of_a_gateway_with_its_shard_loses_no_event(
    service: Service, tmp_path: Path
):
    changes = {"num_shards": 1, "state_folder": str(tmp_path)}
    serve.run(
        build(service.settings.model_copy(update=changes)), name="alone", route_prefix="/alone"
    )
    alone = replace(service, url=f"{service.url}/alone")
    events = service.events(2000, 0)
    before = _pids("alone")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sending = pool.submit(_send, alone, "killed", events, time.monotonic() + 10)
        time.sleep(3)
        _kill_one("gateway", "alone")
        # no retry if the request waits in the proxy: the new process answers it
        sent, _ = sending.result()
    assert len(before) == 1
    assert before.isdisjoint(_pids("alone"))
    alone.check_forecast("killed", events[:sent])
    assert alone.ask("/ready") == (200, {"shards": 1, "models": [service.settings.model_uri]})
    serve.delete("alone")


def test_the_page_shows_a_live_sequence(service: Service, browser):
    events = service.events(12, 3)
    service.append("shown <b>", events[:10])
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url))
    page.goto(service.url + "/")
    page.fill("#name", "shown <b>")
    page.click("button")
    page.wait_for_function("document.querySelector('#message').textContent.startsWith('10 events')")
    assert page.locator("#events .event").count() > 0
    assert page.locator("#intensity polyline").count() == 2
    assert page.locator("#types tr").count() == len(service.types()) + 1
    service.append("shown <b>", events[10:])
    page.wait_for_function("document.querySelector('#message').textContent.startsWith('12 events')")
    assert page.locator("#happened tr").count() > 2
    page.fill("#name", "unknown")
    page.click("button")
    page.wait_for_function("document.querySelector('#message').textContent.includes('no events')")
    assert errors == []
    assert all(url.startswith(service.url) for url in outside)
    page.close()


def test_the_service_follows_an_alias_of_the_registry(
    service: Service, mlflow_client: MlflowClient, tmp_path: Path
):
    """Another version replaces the model in the same processes, and requests are answered."""
    name = f"live-{tmp_path.name}"
    other = tmp_path / "other"
    service.forecaster.save_pretrained(other)
    changed = load_expert(str(other))
    with torch.no_grad():
        for network in changed.networks:
            network.type_embedding.weight.mul_(-2.0)
    changed.save(other)
    mlflow_client.create_registered_model(name)
    for path in (service.settings.model_uri, str(other)):
        _register(mlflow_client, name, path, tmp_path)
    mlflow_client.set_registered_model_alias(name, "champion", "1")
    changes = {"model_uri": f"models:/{name}@champion", "follow_s": 0.5, "num_shards": 1}
    settings = service.settings.model_copy(update={**changes, "state_folder": ""})
    serve.run(build(settings), name="following", route_prefix="/following")
    events = service.events(6, 8)
    path = "/following/v1/sequences/followed"
    assert service.ask(f"{path}/events", {"events": events})[0] == 200
    pids, models, longest = _pids("following"), [], 0.0
    mlflow_client.set_registered_model_alias(name, "champion", "2")
    deadline = time.monotonic() + 60
    while f"models:/{name}/2" not in models and time.monotonic() < deadline:
        asked = time.monotonic()
        status, answer = service.ask(f"{path}/forecast?quantiles=0.5")
        longest = max(longest, time.monotonic() - asked)
        assert status == 200
        models.append(answer["model"])
    assert set(models) == {f"models:/{name}/1", f"models:/{name}/2"}
    assert longest < 5  # it takes longer to load a model in a new process
    assert _pids("following") == pids
    second = replace(
        service, url=f"{service.url}/following", forecaster=Forecaster.from_pretrained(other)
    )
    second.check_forecast("followed", events)
    with pytest.raises(AssertionError):  # the forecast of the first model is another one
        replace(second, forecaster=service.forecaster).check_forecast("followed", events)
    mlflow_client.delete_registered_model_alias(name, "champion")  # the model stays
    time.sleep(2)
    assert service.ask(f"{path}/forecast")[1]["model"] == f"models:/{name}/2"
    serve.delete("following")


def _register(client: MlflowClient, name: str, path: str, scratch: Path) -> None:
    """Register a model as a training with ``tracking.register_as`` does."""
    run = client.create_run("0")
    folder = scratch / run.info.run_id
    save_forecaster(folder, path=path, base="", known_type=0)
    client.log_artifacts(run.info.run_id, str(folder), "forecaster")
    client.create_model_version(name, f"{run.info.artifact_uri}/forecaster", run.info.run_id)


def _pids(application: str) -> set[int]:
    actors: list[Any] = list_actors(
        ray.get_runtime_context().gcs_address, filters=[("state", "=", "ALIVE")], limit=1000
    )
    return {actor.pid for actor in actors if f"{application}#" in (actor.name or "")}


def test_a_language_model_forecasts_the_events_of_the_log(adapted):
    """Without Serve, whose parts do not differ: an adapter with its base, and with text."""
    forecaster = Forecaster.from_pretrained(adapted["adapter_uri"])
    live = LiveSequences(
        EventLog(IN_MEMORY), build_live_model(forecaster, max_sequences=1), max_text=100
    )
    codes = forecaster.trained_tasks.type_codes
    names = [forecaster.trained_tasks.name_of(code) for code in codes]
    raw = [
        {"sequence": "s", "time": 5.0 * place, "type": names[place % len(names)], "text": "at noon"}
        for place in range(6)
    ]
    live.append([AppendRequest(raw)])
    options = {"futures": 2, "horizon": 50.0, "text": True, "seed": 3}
    [answer] = live.forecast([ForecastRequest("s", **options)])
    columns = ([event[key] for event in raw] for key in ("time", "type", "text"))
    times, types, texts = columns
    sequence = forecaster.sequence(times, types, texts=texts, sequence_id="s")
    expected = forecaster.forecast(sequence, **options)
    assert isinstance(answer, Forecast)
    found, right = forecasts_to_json([answer, expected], quantiles=LEVELS)
    assert found.keys() == right.keys()
    for key, value in right.items():
        is_rounded = isinstance(value, float | dict)
        assert found[key] == (pytest.approx(value, rel=1e-4) if is_rounded else value), key
    assert isinstance(found["text"], str)


def test_a_served_language_model_keeps_histories(service: Service, adapted):
    """Clients that send one event at a time, at the same time."""
    path = adapted["adapter_uri"]
    settings = ServeSettings(model_uri=path, max_cache_mib=64, batch_wait_ms=5.0)
    serve.run(build(settings), name="language", route_prefix="/language")
    language = replace(
        service, url=f"{service.url}/language", forecaster=Forecaster.from_pretrained(path)
    )

    def send(name: str, events: list[dict]) -> None:
        for event in events:
            body = {"events": [{"sequence": name, **event}], "forecast": True}
            status, answer = language.ask("/v1/events", body)
            assert status == 200, answer
            assert answer["forecasts"][0]["sequence_id"] == name

    sent = {f"kept-{index}": language.events(5, index) for index in range(6)}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(send, sent, sent.values()))
    for name, events in sent.items():
        language.check_forecast(name, events)
    _wait_for_metric("histories", 6)
    _wait_for_metric("history_tokens_kept", 100)
    serve.delete("language")


def _wait_for_metric(figure: str, least: float) -> None:
    """Wait until the shard of the language model has reported a figure of at least this value."""
    [node] = [node for node in ray.nodes() if node["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    parts = ("mmtpp_serve_states{", f'figure="{figure}"', '"language"')
    deadline, values = time.monotonic() + 60, [0.0]
    while max(values) < least:
        assert time.monotonic() < deadline, f"{figure}: {values}"
        time.sleep(1)
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if all(part in line for part in parts)]
        values = [0.0, *(float(line.split()[-1]) for line in found)]


def test_a_token_opens_the_service(service: Service, tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("planted-secret\n")
    settings = service.settings.model_copy(
        update={"token_file": str(file), "state_folder": "", "num_shards": 1}
    )
    serve.run(build(settings), name="guarded", route_prefix="/guarded")
    assert service.ask("/guarded/ready")[0] == 200
    assert service.ask("/guarded/v1/sequences/s/forecast")[0] == 401
    wrong, right = ({"Authorization": f"Bearer {token}"} for token in ("x", "planted-secret"))
    assert service.ask("/guarded/v1/sequences/s/forecast", **wrong)[0] == 401
    assert service.ask("/guarded/v1/sequences/s/forecast", **right)[0] == 404
    assert "planted-secret" not in str(serve.status())
    serve.delete("guarded")
