"""The small files of a base are copied, and transformers loads the new folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, GenerationConfig

from mmtpp.model.base_folder import save_base
from mmtpp.model.event_model import EventModel, EventModelSettings, build_event_model, save_trained
from mmtpp.model.folders.companions import read_companions
from mmtpp.model.merge import merge_adapter
from mmtpp.model.parameters.lora import attach_lora, save_adapter
from mmtpp.model.processor import MEAN, STD, pixel_values
from mmtpp.model.tokens.vocabulary import Vocabulary
from tests.helpers.qwen_vocabulary import qwen_tokenizer_json
from tests.helpers.tiny_models import tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
PIXELS = {
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "image_mean": list(MEAN),
    "image_std": list(STD),
}
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
# as in the published folder of Qwen2.5-VL
SMALL = {
    "preprocessor_config.json": json.dumps(
        {
            **PIXELS,
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        }
    ),
    "video_preprocessor_config.json": json.dumps(
        {**PIXELS, "video_processor_type": "Qwen2VLVideoProcessor"}
    ),
    "chat_template.json": json.dumps({"chat_template": TEMPLATE}),
    "chat_template.jinja": TEMPLATE,
    "tokenizer_config.json": json.dumps(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 131072,
        }
    ),
    "special_tokens_map.json": json.dumps({"eos_token": "<|im_end|>"}),
    "added_tokens.json": "{}",
    "vocab.json": "{}",
    "merges.txt": "#version: 0.2",
    "generation_config.json": json.dumps(
        {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.1}
    ),
    "LICENSE": "Apache-2.0",
    "NOTICE": "by its authors",
    "README.md": "# The base",
}
OTHER_FILES = {
    "modeling_own.py": "raise SystemExit",
    "pytorch_model.bin": "pickle",
    "training_args.bin": "pickle",
    "scheduler.pt": "pickle",
    "model-00009-of-00009.safetensors": "weights",
    "trainer_state.json": "{}",
    "vocabulary_of_others.json": "{}",
    ".env": "a secret",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model with the small files of published models, and files that are not copied."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, folder)
    for name, text in {**SMALL, **OTHER_FILES}.items():
        (folder / name).write_text(text)
    return folder


def _merged(base: Path) -> Path:
    adapter, merged = base.parent / "adapter", base.parent / "merged"
    for folder in (adapter, merged):
        folder.mkdir()
    adapted = attach_lora(
        tiny_backbone(VOCABULARY), VOCABULARY.added_ids, rank=4, alpha=16, dropout=0.0
    )
    save_adapter(adapted, VOCABULARY, adapter, base=str(base))
    merge_adapter(base, adapter, merged, dtype=torch.float32)
    return merged


def _model_on(base: Path) -> EventModel:
    return build_event_model(
        EventModelSettings(
            lora_rank=0,
            lora_alpha=4,
            lora_dropout=0.0,
            freeze_vision=False,
            activation_checkpointing=False,
            seed=0,
            dtype=torch.float32,
        ),
        VOCABULARY,
        path=base,
    )


def _trained(base: Path, *, is_sharded: bool = False) -> Path:
    model = _model_on(base)
    folder = base.parent / f"trained-{base.name}"
    folder.mkdir()
    whole = dict(model.saved_parameters()) if is_sharded else None
    save_trained(
        model,
        VOCABULARY,
        folder,
        base=str(base),
        parameters=whole,
        companions=read_companions(str(base)),
    )
    return folder


def _twice(base: Path) -> Path:
    return _trained(_trained(base))


def _sharded(base: Path) -> Path:
    return _trained(base, is_sharded=True)


@pytest.mark.parametrize("make", [_merged, _trained, _sharded, _twice])
def test_all_small_files_and_no_other_files_are_copied(base: Path, make):
    folder = make(base)
    for name, text in SMALL.items():
        if name != "README.md":
            assert (folder / name).read_text() == text, name
    if make != _twice:  # here the base's card is the card of the first training
        assert (folder / "README.base.md").read_text() == "# The base"
    assert not [name for name in OTHER_FILES if (folder / name).exists()]
    assert not [*folder.glob("*.bin"), *folder.glob("*.py"), *folder.glob("*.pt")]


@pytest.mark.parametrize("make", [_merged, _trained])
def test_transformers_loads_image_processor_tokenizer_and_generation(base: Path, make):
    folder = make(base)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    frame = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    expected = processor(Image.fromarray(frame), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(pixel_values(frame[None]), expected, rtol=0, atol=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = ["UA1545 to IAH", "哈哈 x\n y"]
    assert VOCABULARY.encode_texts(texts) == tokenizer(texts).input_ids
    assert tokenizer.eos_token == "<|im_end|>"
    written = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert written == "<|im_start|>hi<|im_end|>"
    generation = GenerationConfig.from_pretrained(folder)
    assert (
        generation.do_sample,
        generation.repetition_penalty,
        generation.temperature,
    ) == (True, 1.05, 0.1)


@pytest.mark.parametrize("make", [_merged, _trained])
def test_transformers_loads_the_whole_processor(base: Path, make):
    pytest.importorskip("torchvision", reason="the video part of Qwen's processor needs it")
    processor = AutoProcessor.from_pretrained(make(base), local_files_only=True)
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert processor.chat_template == TEMPLATE


def test_transformers_tokenises_for_a_new_model_like_mmtpp(tmp_path: Path):
    """Without its config, transformers splits texts as Qwen2 does: other ids, and no error."""
    save_base(tiny_backbone(VOCABULARY), VOCABULARY, tmp_path)
    texts = ["UA1545 to IAH", "AA1141 to MIA, 757-223"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert VOCABULARY.encode_texts(texts) == tokenizer(texts).input_ids
    assert read_companions("") == {}


def test_a_genuine_tokenizer_is_the_same_with_its_own_config(tmp_path: Path):
    genuine = Vocabulary(qwen_tokenizer_json())
    genuine.save(tmp_path)
    tokenizer_config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    texts = ["AA1141 to MIA, 757-223", "哈哈哈 12:30", "don't\n\n  stop"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert genuine.encode_texts(texts) == tokenizer(texts).input_ids
