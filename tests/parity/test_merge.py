"""A merged model has the likelihoods of base and adapter, without PEFT and without mmtpp."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLConfig

from mmtpp.core.errors import ModelError
from mmtpp.model import merge
from mmtpp.model.base_folder import load_base, save_base
from mmtpp.model.event_model import EventModel
from mmtpp.model.merge import merge_adapter
from mmtpp.model.parameters.lora import attach_lora, save_adapter
from tests.helpers.tiny_models import nll, random_row, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
ROW = random_row(VOCABULARY, [40, 30], seed=1)


def _folders(tmp_path: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, Path, Path]:
    folders = tuple(tmp_path / name for name in ("base", "adapter", "merged"))
    for folder in folders:
        folder.mkdir()
    save_base(tiny_backbone(VOCABULARY).to(dtype), VOCABULARY, folders[0])
    adapted = attach_lora(
        tiny_backbone(VOCABULARY), VOCABULARY.added_ids, rank=4, alpha=16, dropout=0.0
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # rows and factors that change the result
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_adapter(adapted, VOCABULARY, folders[1], base="base")
    return folders  # pyright: ignore[reportReturnType]


def test_the_merged_model_equals_base_and_adapter(tmp_path: Path):
    base, adapter, merged = _folders(tmp_path)
    assert merge_adapter(base, adapter, merged, dtype=torch.float32) < 1e-3
    plain, vocabulary = load_base(merged, dtype=torch.float32)
    assert VOCABULARY.hash == vocabulary.hash
    expected_nll = nll(EventModel(plain.eval()), VOCABULARY, ROW)
    untrained, _ = load_base(base, dtype=torch.float32)
    assert (expected_nll - nll(EventModel(untrained.eval()), VOCABULARY, ROW)).abs().max() > 1
    assert not [path for path in merged.iterdir() if "adapter" in path.name]


def test_the_type_of_the_base_is_kept(tmp_path: Path):
    base, adapter, merged = _folders(tmp_path, torch.bfloat16)
    # with losses of tens of nats
    assert 0 < merge_adapter(base, adapter, merged, dtype=torch.float32) < 2
    assert Qwen2_5_VLConfig.from_pretrained(merged).dtype == torch.bfloat16


def test_a_merged_model_with_other_likelihoods_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base, adapter, merged = _folders(tmp_path)
    monkeypatch.setattr(
        merge,
        "save_base",
        lambda _model, vocabulary, folder: save_base(
            tiny_backbone(VOCABULARY, seed=5), vocabulary, folder
        ),
    )
    with pytest.raises(ModelError, match="differs from base and adapter"):
        merge_adapter(base, adapter, merged, dtype=torch.float32)
