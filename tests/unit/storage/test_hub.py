"""Downloads from a local server with the hub's protocol, by the hub's own client."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hub_server import COMMIT, serve_hub
from tests.helpers.paths import ROOT

FILES = {
    "tokenizer.json": b"{}",
    "config.json": b"[]",
    "model.safetensors": b"weights",
    "modeling.py": b"raise SystemExit('remote code')",
    "pytorch_model.bin": b"pickle",
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"Apache-2.0",
    "README.md": b"the base",
}
DOWNLOADED = set(FILES) - {"modeling.py", "pytorch_model.bin"}


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Address of the server, and the files that clients requested."""
    with serve_hub("owner/name", FILES) as served:
        yield served


DOWNLOAD = """
import sys
from mmtpp.model.folders.folder import local_folder
with local_folder(sys.argv[1]) as folder:
    print(folder); print(*sorted(path.name for path in folder.iterdir()))
"""
COMPANIONS = """
import sys
from mmtpp.model.folders.companions import read_companions
for name, content in sorted(read_companions(sys.argv[1]).items()):
    print(name, content.decode())
"""
PIN = "import sys; from mmtpp.storage.hub import pin_revision; print(pin_revision(sys.argv[1]))"


def _download(
    endpoint: str, home: Path, uri: str, program: str = DOWNLOAD
) -> subprocess.CompletedProcess:
    """Run a program in a new process, because the client reads its environment once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", program, uri],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_weights_and_json_are_downloaded_once_and_no_code(
    hub: tuple[str, list[str]], tmp_path: Path
):
    endpoint, requested = hub
    done = _download(endpoint, tmp_path, f"hf://owner/name@{COMMIT}")
    assert done.returncode == 0, done.stderr
    folder, names = done.stdout.splitlines()
    assert names.split() == sorted(DOWNLOADED)
    assert (Path(folder) / "model.safetensors").read_bytes() == b"weights"
    assert set(requested) == DOWNLOADED
    downloads = len(requested)
    assert _download(endpoint, tmp_path, f"hf://owner/name@{COMMIT}").returncode == 0
    assert len(requested) == downloads


def test_the_small_files_of_a_base_are_downloaded_without_its_weights(
    hub: tuple[str, list[str]], tmp_path: Path
):
    endpoint, requested = hub
    done = _download(endpoint, tmp_path, f"hf://owner/name@{COMMIT}", COMPANIONS)
    assert done.stdout.splitlines() == [
        "LICENSE Apache-2.0",
        "README.base.md the base",
        "chat_template.jinja {{ messages }}",
    ], done.stderr
    assert set(requested) == {"LICENSE", "README.md", "chat_template.jinja"}


def test_a_model_without_revision_is_pinned_to_its_current_commit(
    hub: tuple[str, list[str]], tmp_path: Path
):
    for uri in ("hf://owner/name", f"hf://owner/name@{COMMIT}"):
        done = _download(hub[0], tmp_path, uri, PIN)
        assert done.stdout.strip() == f"hf://owner/name@{COMMIT}", done.stderr
    assert _download(hub[0], tmp_path, "s3://b/m", PIN).stdout.strip() == "s3://b/m"


def test_a_model_that_the_hub_does_not_have_is_an_error(hub: tuple[str, list[str]], tmp_path: Path):
    done = _download(hub[0], tmp_path, "hf://owner/other")
    assert "StorageError" in done.stderr
    assert "cannot download this model from the hub" in done.stderr
    assert "where: hf://owner/other" in done.stderr


def test_an_unreachable_hub_is_an_error(tmp_path: Path):
    done = _download("http://127.0.0.1:1", tmp_path, "hf://owner/name")
    assert "cannot download this model from the hub" in done.stderr
