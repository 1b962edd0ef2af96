"""Training of all parameters on events without images, with two workers and ZeRO-3."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.model.base_folder import build_tiny, save_base
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import copy_folder
from mmtpp.train.launch import pretrain
from tests.helpers.job_settings import RUNS, STORE, make_config

COPIED = {"preprocessor_config.json": "{}", "chat_template.jinja": "{{ messages }}", "LICENSE": "x"}
NOT_COPIED = {"modeling_own.py": "raise SystemExit", "pytorch_model.bin": "pickle"}


@pytest.fixture
def own_base(store, tmp_path: Path) -> Path:
    """A random model on S3 with files that a training copies and files that it must not copy."""
    folder = tmp_path / "base"
    folder.mkdir()
    vocabulary = store_vocabulary(STORE, load_manifest(STORE))
    save_base(build_tiny(vocabulary, seed=1), vocabulary, folder)
    for name, text in {**COPIED, **NOT_COPIED}.items():
        (folder / name).write_text(text)
    copy_folder(str(folder), f"{RUNS}/own-base")
    return folder


def test_the_vision_tower_is_unchanged_and_small_files_are_copied(own_base: Path, tmp_path: Path):
    result = pretrain(
        make_config(
            **{
                "run.name": "text-only",
                "model.path": f"{RUNS}/own-base",
                "template.images": "none",
                "zero.stage": 3,
                "training.num_steps": 3,
                "training.checkpoint_every": 2,
            }
        )
    )
    assert result["steps"] == 3
    output = tmp_path / "output"
    copy_folder(f"{RUNS}/text-only/model", str(output))
    before, after = (load_file(folder / "model.safetensors") for folder in (own_base, output))
    assert before.keys() == after.keys()
    tower = [name for name in before if "visual" in name]
    assert tower
    assert all(torch.equal(before[name], after[name]) for name in tower)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > 20
    sizes = {name: tensor.numel() for name, tensor in before.items()}
    expected = sum(sizes.values()) - sum(sizes[name] for name in tower)
    assert result["metrics"]["model/trained_parameters"] == expected
    for name, text in COPIED.items():
        assert (output / name).read_text() == text
    assert "events" in (output / "README.md").read_text()
    assert not [name for name in NOT_COPIED if (output / name).exists()]
