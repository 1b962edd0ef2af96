"""LoRA: a new adapter changes nothing, trains only its parameters, and can be saved and loaded."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from mmtpp.core.errors import ModelError
from mmtpp.model.base_folder import load_base, save_base
from mmtpp.model.event_model import (
    EventModel,
    EventModelSettings,
    build_event_model,
    load_event_model,
    save_trained,
)
from mmtpp.model.folders.adapter import check_adapter
from mmtpp.model.parameters.lora import (
    attach_lora,
    load_adapter,
    save_adapter,
    trainable_parameters,
)
from tests.helpers.tiny_models import batcher, nll, random_row, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
ROW = random_row(VOCABULARY, [40, 30], seed=1)


def _trained_adapter():
    torch.manual_seed(0)
    model = attach_lora(
        tiny_backbone(VOCABULARY), VOCABULARY.added_ids, rank=4, alpha=16, dropout=0.0
    )
    event_model = EventModel(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for _ in range(3):
        event_model(batcher(VOCABULARY)(ROW))[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return event_model.eval()


def test_a_new_adapter_changes_nothing():
    base = nll(EventModel(tiny_backbone(VOCABULARY)), VOCABULARY, ROW)
    adapted = attach_lora(
        tiny_backbone(VOCABULARY), VOCABULARY.added_ids, rank=4, alpha=16, dropout=0.0
    )
    assert torch.equal(base, nll(EventModel(adapted.eval()), VOCABULARY, ROW))


def test_only_the_language_model_and_the_added_rows_train():
    model = attach_lora(
        tiny_backbone(VOCABULARY), VOCABULARY.added_ids, rank=4, alpha=16, dropout=0.0
    )
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not [name for name in names if "visual" in name]
    # by hand: hidden 96, two key-value heads of 24, MLP 288, three layers, rank 4
    shapes = [(96, 96), (96, 48), (96, 48), (96, 96), (96, 288), (96, 288), (288, 96)]
    lora = 3 * sum(4 * (inputs + outputs) for inputs, outputs in shapes)
    assert trainable_parameters(model)[0] == lora + 267 * 96


def test_a_saved_adapter_gives_identical_likelihoods(tmp_path):
    trained = _trained_adapter()
    expected = nll(trained, VOCABULARY, ROW)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, base)
    save_trained(trained, VOCABULARY, adapter, base="s3://somewhere/base")
    loaded, vocabulary = load_event_model(path=base, adapter=adapter, dtype=torch.float32)
    assert vocabulary.hash == VOCABULARY.hash
    assert torch.equal(expected, nll(loaded, VOCABULARY, ROW))
    # PEFT alone loads the same tensors
    plain = PeftModel.from_pretrained(tiny_backbone(VOCABULARY), adapter)
    assert set(load_file(adapter / "adapter_model.safetensors")) == set(
        get_peft_model_state_dict(plain)
    )
    assert torch.equal(expected, nll(EventModel(plain.eval()), VOCABULARY, ROW))
    assert (
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "s3://somewhere/base"
    )
    assert not list(adapter.glob("*.bin")) + list(base.glob("*.bin"))


def test_a_base_folder_round_trips(tmp_path):
    model = tiny_backbone(VOCABULARY)
    save_base(model, VOCABULARY, tmp_path)
    loaded, _ = load_base(tmp_path, dtype=torch.float32)
    assert torch.equal(
        nll(EventModel(model), VOCABULARY, ROW),
        nll(EventModel(loaded.eval()), VOCABULARY, ROW),
    )


@pytest.mark.parametrize("rank", [0, 4])
def test_a_loaded_base_trains_with_dropout_and_checkpointing(tmp_path, rank: int):
    """In evaluation mode, in which from_pretrained returns a model, neither would happen."""
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, tmp_path)
    model = build_event_model(
        EventModelSettings(
            lora_rank=rank,
            lora_alpha=8,
            lora_dropout=0.5,
            freeze_vision=False,
            activation_checkpointing=True,
            seed=0,
            dtype=torch.float32,
        ),
        VOCABULARY,
        path=tmp_path,
    )
    layers = model.base.model.language_model.layers
    assert all(layer.training and layer.gradient_checkpointing for layer in layers)
    model(batcher(VOCABULARY)(ROW))[0].mean().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


@pytest.mark.parametrize("missing", ["lora_A", "trainable_tokens"])
def test_an_adapter_with_a_missing_tensor_is_refused(tmp_path, missing: str):
    trained = _trained_adapter()
    save_adapter(trained.backbone, VOCABULARY, tmp_path, base="base")  # pyright: ignore
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(name for name in sorted(tensors) if missing in name))
    save_file(tensors, path)
    with pytest.raises(ModelError, match="does not fit the base model"):
        load_adapter(tiny_backbone(VOCABULARY), VOCABULARY, tmp_path)


def test_another_vocabulary_is_refused(tmp_path):
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, tmp_path)
    recorded = tmp_path / "vocabulary.json"
    tree = json.loads(recorded.read_text())
    recorded.write_text(json.dumps({**tree, "hash": "0" * 64}))
    with pytest.raises(ModelError, match="two vocabularies"):
        load_base(tmp_path, dtype=torch.float32)


def test_a_folder_without_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a model folder"):
        load_base(tmp_path, dtype=torch.float32)


def _resumed(tmp_path, *, rank: int) -> EventModel:
    return build_event_model(
        EventModelSettings(
            lora_rank=rank,
            lora_alpha=16,
            lora_dropout=0.0,
            freeze_vision=False,
            activation_checkpointing=False,
            seed=7,
            dtype=torch.float32,
        ),
        VOCABULARY,
        path=tmp_path / "base",
        adapter=tmp_path / "adapter",
    )


def test_a_saved_adapter_is_trained_further(tmp_path):
    trained = _trained_adapter()
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, tmp_path / "base")
    save_trained(trained, VOCABULARY, tmp_path / "adapter", base="base")
    resumed = _resumed(tmp_path, rank=4)
    assert resumed.training
    assert torch.equal(nll(trained, VOCABULARY, ROW), nll(resumed.eval(), VOCABULARY, ROW))
    assert trainable_parameters(trained.backbone) == trainable_parameters(resumed.backbone)
    folder = str(tmp_path / "adapter")
    check_adapter(folder, rank=4, alpha=16)
    with pytest.raises(ModelError, match=r"(?s)rank 4 and alpha 16.*lora\.alpha = 64"):
        check_adapter(folder, rank=4, alpha=64)
    with pytest.raises(ModelError, match="not an adapter folder"):
        check_adapter(str(tmp_path / "base"), rank=4, alpha=16)
    with pytest.raises(ModelError, match="does not fit the base model"):
        _resumed(tmp_path, rank=2)
