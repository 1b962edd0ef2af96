"""``mlflow models serve``: MLflow's own server answers with the forecasts of the Python API."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from mmtpp.api.forecaster import Forecaster
from mmtpp.core.events import EventSequence
from mmtpp.expert.expert_folder import Expert
from mmtpp.model.folders.record import write_tasks
from mmtpp.track.logged_model import save_forecaster
from tests.helpers.live_models import expert_forecaster


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Folder of an expert with random weights."""
    forecaster = expert_forecaster()
    folder = tmp_path / "expert"
    folder.mkdir()
    assert isinstance(forecaster.model, Expert)
    assert forecaster.vocabulary is not None
    forecaster.model.save(folder)
    forecaster.vocabulary.save(folder)
    write_tasks(forecaster.trained_tasks, folder)
    return folder


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[str]:
    """Address of MLflow's server of the logged model."""
    save_forecaster(tmp_path / "logged", path=str(model), base="", known_type="alarm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri"]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    bin_folder = str(Path(sys.executable).parent)  # where uvicorn is
    process = subprocess.Popen(
        [*command, str(tmp_path / "logged"), *options],
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/ping", process)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def test_mlflows_server_gives_the_same_numbers(model: Path, server: str):
    times, types = [0.0, 1.5, 3.0], ["alarm", "check", "alarm"]
    sequence = EventSequence("a", np.array(times), np.array([0, 3, 0]), ("",) * 3, (None,) * 3)
    expected = Forecaster.from_pretrained(str(model)).forecast(sequence)
    frame = {"columns": ["sequence_id", "times", "types"], "data": [["a", times, types]]}
    request = urllib.request.Request(
        f"{server}/invocations",
        data=json.dumps({"dataframe_split": frame}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        [forecast] = json.load(answer)["predictions"]
    assert expected.interval is not None
    assert expected.type_probabilities is not None
    assert forecast["interval_q50"] == pytest.approx(expected.interval.quantiles([0.5])[0, 0])
    assert forecast["interval_mean"] == pytest.approx(expected.interval.mean()[0])
    probabilities = {row["type"]: row["probability"] for row in forecast["type_probabilities"]}
    assert probabilities == pytest.approx(expected.type_probabilities)
