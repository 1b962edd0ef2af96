"""The Serve application behind HAProxy, on its own cluster: Ray reads the choice at its start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmtpp.api.forecaster import Forecaster
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PROGRAM = """
import json, os, sys, time, urllib.error, urllib.request
import psutil, ray
from ray import serve
from cluster.ports import free_ports
from mmtpp.serve.app import build
from mmtpp.serve.settings import ServeSettings

def ask(path, body=None, token="secret"):
    headers = {"content-type": "application/json", "Authorization": f"Bearer {token}"}
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        is_of_the_program = error.headers.get_content_type() == "application/json"
        return -1 if error.code == 500 and is_of_the_program else error.code, {}
    except (urllib.error.URLError, ConnectionError):
        return 0, {}

model, folder, events = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
context = ray.init(num_cpus=2)
port = free_ports(["serve"])["serve"]
serve.start(http_options={"host": "127.0.0.1", "port": port})
settings = ServeSettings(model_uri=model, state_folder=folder, token_file=f"{folder}/token")
name = f"haproxy-{os.getpid()}"
serve.run(build(settings), name=name)
wrong, _ = ask("/v1/sequences/s/forecast", token="wrong")
path = "/v1/sequences/s"
statuses = [ask(f"{path}/events", {"events": events[:3], "after": 0})[0]]
for process in psutil.process_iter(["cmdline"]):
    if "".join(process.info["cmdline"] or []).startswith(f"ray::ServeReplica:{name}:gateway"):
        process.kill()
while len(statuses) == 1 or statuses[-1] not in (200, 409):  # 409: the answer was lost
    statuses.append(ask(f"{path}/events", {"events": events[3:], "after": 3})[0])
    time.sleep(0.2)
_, forecast = ask(f"{path}/forecast?quantiles=0.5")
serve.shutdown()
ray.shutdown()
print(json.dumps({"wrong": wrong, "statuses": statuses, "forecast": forecast}))
"""


def test_haproxy_answers_with_a_token_and_after_a_kill(expert, tmp_path: Path):
    (tmp_path / "token").write_text("secret")
    forecaster = Forecaster.from_pretrained(expert["model_uri"])
    trained_tasks = forecaster.trained_tasks
    name = trained_tasks.name_of(trained_tasks.type_codes[0])
    events = [{"time": 5.0 * place, "type": name, "text": "at noon"} for place in range(6)]
    environment = {
        **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # beside the cluster of the other tests
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, expert["model_uri"], str(tmp_path), json.dumps(events)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == 401
    assert found["statuses"][0] == 200
    assert set(found["statuses"]) - {200} <= {0, 500, 502, 503, 504}
    assert len(found["statuses"]) > 2  # no process answered for a while
    sequence = forecaster.sequence(
        [event["time"] for event in events],
        [name] * 6,
        texts=[event["text"] for event in events],
        sequence_id="s",
    )
    expected = forecaster.forecast(sequence).as_row((0.5,))
    assert found["forecast"]["events"] == 6
    assert found["forecast"]["interval_q50"] == pytest.approx(expected["interval_q50"], rel=1e-4)
