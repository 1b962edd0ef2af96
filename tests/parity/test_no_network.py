"""Saving to and loading from local folders opens no connection, for any name of the base."""

import socket
from functools import partial
from pathlib import Path

import pytest
import torch

from mmtpp.core.errors import ModelError
from mmtpp.model.base_folder import save_base
from mmtpp.model.event_model import (
    EventModel,
    EventModelSettings,
    build_event_model,
    load_event_model,
    save_trained,
)
from mmtpp.model.merge import merge_adapter
from tests.helpers.tiny_models import tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
BASES = {
    "a name that the hub could have": "owner/base",
    "a hub model": "hf://owner/base",
    "a bucket": "s3://bucket/base",
    "a folder that is gone": "/no/such/base",
    "a fresh model": "",
}


@pytest.fixture
def requested_hosts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Hosts that the test resolved or connected to; both always fail."""
    hosts: list[object] = []

    def look_up(host: object, *_arguments: object, **_options: object) -> None:
        hosts.append(host)
        raise OSError("this test has no network")

    def connect(_socket: socket.socket, address: object) -> None:
        look_up(address)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    return hosts


def _adapter_on(base: Path, adapter: Path | None = None) -> EventModel:
    return build_event_model(
        EventModelSettings(
            lora_rank=4,
            lora_alpha=16,
            lora_dropout=0.0,
            freeze_vision=False,
            activation_checkpointing=False,
            seed=0,
            dtype=torch.float32,
        ),
        VOCABULARY,
        path=base,
        adapter=adapter,
    )


@pytest.mark.parametrize("named", BASES)
def test_adapters_are_saved_and_loaded_without_a_connection(
    tmp_path: Path, requested_hosts: list[object], named: str, recwarn: pytest.WarningsRecorder
):
    folders = [tmp_path / name for name in ("base", "adapter", "again", "merged")]
    for folder in folders:
        folder.mkdir()
    base, adapter, again, merged = folders
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, base)
    model = _adapter_on(base)
    save_trained(model, VOCABULARY, adapter, base=BASES[named])
    whole = dict(model.saved_parameters())  # the parameters that are gathered from a sharded model
    save_trained(model, VOCABULARY, again, base=BASES[named], parameters=whole)
    load_event_model(path=base, adapter=adapter, dtype=torch.float32)
    _adapter_on(base, adapter)
    merge_adapter(base, again, merged, dtype=torch.float32)
    load_event_model(path=merged, adapter=None, dtype=torch.float32)
    assert not requested_hosts
    assert not [warning for warning in recwarn if "config" in str(warning.message)]


def test_a_request_to_the_network_is_recorded(requested_hosts: list[object]):
    """Without this, the test above could pass although a connection was opened."""
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("huggingface.co", 443))
    assert requested_hosts == ["huggingface.co"]


@pytest.mark.parametrize("resumes", [False, True])
def test_an_adapter_without_safetensors_is_refused(
    tmp_path: Path, requested_hosts: list[object], resumes: bool
):
    """PEFT would read adapter_model.bin, a pickle, or ask the hub for the weights."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, base)
    save_trained(_adapter_on(base), VOCABULARY, adapter, base="owner/base")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    load = partial(_adapter_on, base, adapter)
    if not resumes:
        load = partial(load_event_model, path=base, adapter=adapter, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        load()
    assert not requested_hosts
