"""The private parts of torch and transformers that the project uses still exist."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import transformers
from torch.utils import _pytree

from mmtpp.compat import torch_hooks, transformers_hooks

CONSTRAINTS = (Path(__file__).parents[3] / "constraints.txt").read_text()


@pytest.mark.parametrize(
    ("module", "library", "name"),
    [(torch_hooks, torch, "torch"), (transformers_hooks, transformers, "transformers")],
)
def test_the_hooks_name_the_pinned_version(module, library, name: str):
    version = library.__version__.partition("+")[0]
    assert f"\n{name}=={version}\n" in CONSTRAINTS
    assert set(re.findall(rf"{name} (\d+\.\d+\.\d+)", inspect.getsource(module))) == {version}


def test_the_pytree_logger_has_its_name():
    assert _pytree.log.name == torch_hooks.PYTREE_LOGGER


def test_the_cpu_knows_whether_it_has_bfloat16():
    assert isinstance(torch_hooks.cpu_has_bfloat16(), bool)


def test_storages_on_the_meta_device_have_ids():
    first, second = (torch.empty(3, device="meta") for _ in range(2))
    identity = torch_hooks.storage_id(first.untyped_storage())
    assert identity == torch_hooks.storage_id(first.view(3, 1).untyped_storage())
    assert identity != torch_hooks.storage_id(second.untyped_storage())


def test_a_model_takes_its_attention_from_its_configuration():
    config = transformers.Qwen2Config(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        vocab_size=8,
    )
    transformers_hooks.set_attention(config, "eager")
    with torch.device("meta"):
        model = transformers.Qwen2Model(config)
    assert model.config._attn_implementation == "eager"
