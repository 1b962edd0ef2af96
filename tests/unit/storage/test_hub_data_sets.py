"""Data sets of the hub as sources, read by the hub's own client from a local server."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.hub_server import COMMIT, serve_hub
from tests.helpers.paths import ROOT

DATA_SET = f"hf://datasets/owner/name@{COMMIT}"
ROWS = [
    {"t": 1.5 * row, "k": "ab"[row % 2], "s": f"q{row % 3}", "x": "hi", "i": "frames/a.png"}
    for row in range(30)
]
TOKEN = "hf_planted_secret_0123456789"


def _picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


FILES = {
    "README.md": b"a card",
    "data/a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS[:18]).encode(),
    "data/more/b.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS[18:]).encode(),
    "data/frames/a.png": _picture(),
}
READ = """
import sys
import mmtpp
from mmtpp.core.errors import MmtppError
for uri in sys.argv[1:]:
    try:
        sequences = mmtpp.load_sequences(
            uri, columns=dict(time="t", type="k", sequence="s", text="x", image="i"), types="auto"
        )
    except MmtppError as error:
        print(type(error).__name__, *str(error).splitlines())
    else:
        print(sequences, sorted(len(sequence.times) for sequence in sequences))
"""
PREPARE = f"""
import json, ray
from mmtpp.config.load import config_from_tree
from mmtpp.data.prepare import prepare
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
columns = dict(time="t", type="k", sequence="s", text="x", image="i")
result = prepare(config_from_tree({{
    "source": {{"kind": "columns", "uri": "{DATA_SET}/data", "types": "auto", "columns": columns}},
    "store": {{"uri": "STORE"}},
    "template": {{"image_px": 56}},
}}))
print(json.dumps(result))
"""


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of the server."""
    with serve_hub("datasets/owner/name", FILES) as (endpoint, _):
        yield endpoint


def _run(endpoint: str, home: Path, program: str, *uris: str) -> subprocess.CompletedProcess:
    """Run a program in a new process, because the client reads its environment once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "RAY_AUTH_MODE": "disabled",
    }
    return subprocess.run(
        [sys.executable, "-c", program, *uris],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sequences_are_read_from_the_hub(hub: str, tmp_path: Path):
    wrong = {
        f"{DATA_SET}/none": "there is no such file or folder",
        DATA_SET.replace("name@", "other@"): "there is no such file or folder",
        "hf://datasets/owner/name/data": "needs a commit",
        "hf://datasets/owner/name@main/data": "needs a commit",
    }
    done = _run(hub, tmp_path, READ, f"{DATA_SET}/data", *wrong)
    assert done.returncode == 0, done.stderr
    lines = iter(done.stdout.splitlines())
    sequences = "Sequences(3 sequences, 30 events, 0 records rejected, types a, b) [10, 10, 10]"
    assert next(lines) == sequences
    for (uri, error), line in zip(wrong.items(), lines, strict=True):
        assert error in line
        assert f"where: {uri}" in line
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.slow  # starts Ray of its own, because its processes need the address of the server
def test_a_data_set_of_the_hub_is_prepared_with_its_images(hub: str, tmp_path: Path):
    store = tmp_path / "store"
    done = _run(hub, tmp_path / "home", PREPARE.replace("STORE", str(store)))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["events_kept"], result["sequences"], result["frames"]) == (30, 3, 1)
    assert TOKEN not in done.stdout + done.stderr
    assert not [path for path in store.rglob("*") if path.is_file() and _holds_token(path)]


def _holds_token(path: Path) -> bool:
    return TOKEN.encode() in path.read_bytes()


def test_an_unreachable_hub_is_an_error(tmp_path: Path):
    done = _run("http://127.0.0.1:1", tmp_path, READ, f"{DATA_SET}/data")
    assert "StorageError" in done.stdout
    assert "check the network and HF_ENDPOINT" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
