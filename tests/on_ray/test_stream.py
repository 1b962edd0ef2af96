"""Streams with the services around them: buckets, ``prepare``, and a service of live forecasts."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray import serve

import mmtpp
from cluster.ports import free_ports
from mmtpp.config.load import with_values
from mmtpp.core.errors import StorageError
from mmtpp.data.prepare import prepare
from mmtpp.serve.app import build
from mmtpp.serve.settings import ServeSettings
from mmtpp.storage.paths import create_bytes, list_files, write_bytes
from mmtpp.stream import output_folder
from mmtpp.stream.output_folder import OutputFolder
from mmtpp.stream.stream_job import stream
from tests.helpers.job_settings import make_config
from tests.helpers.paths import ROOT
from tests.helpers.streams import (
    add_file,
    as_assignments,
    event,
    stream_config,
    stream_settings,
    times_of,
)


def _rows(start: int, number: int) -> list[dict]:
    return [event(f"s{n % 12}", n, f"note {n}", "ab"[n % 2]) for n in range(start, start + number)]


def test_prepare_reads_only_the_newly_landed_files(cluster, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mmtpp.data.encode.shards.FILES_PER_SHARD", 1)
    incoming, output = tmp_path / "incoming", tmp_path / "landed"
    set_of_rows = [_rows(0, 240), _rows(240, 60)]
    add_file(incoming, "a.jsonl", set_of_rows[0])
    report = stream(stream_config(incoming, output))
    assert isinstance(report["prepare_settings"], dict)
    values = {
        key: json.loads(value) if str(value).startswith("[") else value
        for key, value in report["prepare_settings"].items()
    }
    config = make_config(**{**values, "store.uri": str(tmp_path / "store")})
    first = prepare(config)
    assert (first["events_kept"], first["events_rejected"]) == (240, 0)
    add_file(incoming, "b.jsonl", set_of_rows[1])
    more = stream(stream_config(incoming, output))
    assert more["commits"] == 2
    second = prepare(config)
    assert (second["events_kept"], second["shards_copied"]) == (300, 1)
    assert second["type_names"] == ["a", "b"]
    assert second["sequences"] == 12
    # another store, of the files as they came, has the same sequences
    whole = {"source.uri": str(incoming), "store.uri": str(tmp_path / "whole")}
    columns = {f"source.columns.{name}": column for name, column in _COLUMNS.items()}
    prepare(with_values(config, {**whole, **columns, "source.columns.time_format": ""}))
    assert _contents(tmp_path / "store") == _contents(tmp_path / "whole")


_COLUMNS = {"time": "at", "sequence": "who", "type": "what", "text": "note"}


def _contents(store: Path) -> dict[str, tuple]:
    return {
        item.sequence_id: (item.times.tolist(), item.types.tolist(), item.texts)
        for item in mmtpp.load_sequences(store)
    }


def test_a_bucket_refuses_the_second_of_two_jobs(stack, tmp_path: Path, monkeypatch):
    uri = "s3://mmtpp/t/stream/two"
    assert create_bytes(f"{uri}/once", b"1")
    assert not create_bytes(f"{uri}/once", b"2")
    for number in range(3):
        write_bytes(f"{uri}/incoming/{number}.jsonl", json.dumps(event("x", number)).encode())
    config = stream_config(f"{uri}/incoming", f"{uri}/landed")
    original = OutputFolder.commit

    def commit_second(self, record, tables):
        """Let another job make the commit first."""
        monkeypatch.setattr(OutputFolder, "commit", original)
        stream(config)
        original(self, record, tables)

    monkeypatch.setattr(OutputFolder, "commit", commit_second)
    with pytest.raises(StorageError, match="another job has made commit 1"):
        stream(config)
    report = stream(config)
    assert (report["events_read"], report["events_landed"]) == (3, 3)
    assert len(list_files(f"{uri}/landed/events", ".parquet")) >= 1
    assert output_folder.ABOUT_FILE in [
        info.path.rpartition("/")[2] for info in list_files(f"{uri}/landed", ".json")
    ]


@pytest.fixture
def service_url(expert, tmp_path_factory: pytest.TempPathFactory):
    folder = str(tmp_path_factory.mktemp("state"))
    settings = ServeSettings(model_uri=expert["model_uri"], state_folder=folder, num_shards=2)
    port = free_ports(["serve"])["serve"]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(settings), name="stream")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_a_service_gets_each_event_once_although_jobs_are_killed(service_url: str, tmp_path: Path):
    """The types of the expert are numbers, as those of the tests' source."""
    incoming, output = tmp_path / "incoming", tmp_path / "landed"
    for number in range(10):
        rows = [
            event(f"s{n % 5}", n, "at noon", 0) for n in range(200 * number, 200 * number + 200)
        ]
        add_file(incoming, f"{number}.jsonl", rows)
    settings = stream_settings(
        incoming, output, **{"stream.service": service_url, "source.types": "[]"}
    )
    command = [sys.executable, "jobs/stream.py", *as_assignments(settings)]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        while "commit" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    report = stream(
        stream_config(incoming, output, **{"stream.service": service_url, "source.types": ()})
    )
    assert (report["events_delivered"], report["events_refused"]) == (2000, {})
    for name, times in times_of(output).items():
        assert len(times) == 400
        assert _served_times(service_url, name) == times


def _served_times(url: str, name: str) -> list[float]:
    import urllib.request

    with urllib.request.urlopen(f"{url}/v1/sequences/{name}/events?last=1000") as answer:
        return [item["time"] for item in json.loads(answer.read())["events"]]
