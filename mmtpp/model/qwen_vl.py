"""Build, load and save the backbone, Qwen2.5-VL, in the format of Hugging Face."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mmtpp.compat.deepspeed_hooks import full_shape
from mmtpp.compat.transformers_hooks import set_attention
from mmtpp.core.errors import ModelError
from mmtpp.model.vocabulary import NUM_ADDED, SPARE_ROWS, Vocabulary, load_vocabulary

BASE_FOLDER_HINT = "a Hugging Face folder with config.json, *.safetensors and tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# without this file transformers ignores how tokenizer.json splits texts and uses Qwen2's rules
_TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast"}
TINY_WIDTH, TINY_LAYERS = 96, 3
_HEAD_WIDTH = 24


def tiny_config(
    vocabulary: Vocabulary, *, width: int = TINY_WIDTH, layers: int = TINY_LAYERS
) -> Qwen2_5_VLConfig:
    """The architecture with 0.5 M parameters, and with the number of spare rows of the 3B.

    Args:
        vocabulary: Vocabulary of the event store.
        width: Width of the language model, a multiple of 24, the width of a head.
        layers: Number of layers of the language model.
    """
    heads = width // _HEAD_WIDTH
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary.byte_base + SPARE_ROWS,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads if heads % 2 else heads // 2,
            "max_position_embeddings": 32768,
            # sections sum to half a head: time 2, height 5, width 5
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2, 5, 5],
            },
            "bos_token_id": None,
            "eos_token_id": vocabulary.special("<|im_end|>"),
            "pad_token_id": None,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": width,
            "fullatt_block_indexes": [1],
        },
        image_token_id=vocabulary.special("<|image_pad|>"),
        video_token_id=vocabulary.special("<|video_pad|>"),
        vision_start_token_id=vocabulary.special("<|vision_start|>"),
        vision_end_token_id=vocabulary.special("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_tiny(
    vocabulary: Vocabulary,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    width: int = TINY_WIDTH,
    layers: int = TINY_LAYERS,
) -> Qwen2_5_VLForConditionalGeneration:
    """Build a randomly initialised ``tiny`` model; the same seed gives the same weights."""
    config = tiny_config(vocabulary, width=width, layers=layers)
    set_attention(config, "sdpa")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def load_base(
    folder: Path, *, dtype: torch.dtype
) -> tuple[Qwen2_5_VLForConditionalGeneration, Vocabulary]:
    """Load weights (only safetensors) and vocabulary from a local Hugging Face folder.

    Raises:
        ModelError: The folder is incomplete, the architecture is another one, the weights do not
            fit it, or the embedding has too few spare rows for the added tokens.
    """
    if not (folder / "config.json").exists():
        raise ModelError("this is not a model folder", where=str(folder), cause=BASE_FOLDER_HINT)
    vocabulary = load_vocabulary(folder)
    try:
        # a pair, because of output_loading_info
        loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model cannot be loaded: {error}", where=str(folder), cause=BASE_FOLDER_HINT
        ) from error
    model, report = loaded
    problems = {key: sorted(map(str, keys)) for key, keys in report.items() if keys}
    if problems:
        raise ModelError(f"the weights do not fit the architecture: {problems}", where=str(folder))
    weight = model.get_input_embeddings().weight
    rows = full_shape(weight)[0]  # with ZeRO-3 the parameter itself is empty
    if rows < vocabulary.num_tokens:
        raise ModelError(
            f"the embedding has {rows} rows, the vocabulary needs {vocabulary.num_tokens}: "
            f"{vocabulary.byte_base} for the tokenizer and {NUM_ADDED} for added tokens",
            where=str(folder),
            cause="the base model has no spare rows; Qwen2.5-VL-3B and 7B have them",
        )
    return model, vocabulary


def save_base(
    model: Qwen2_5_VLForConditionalGeneration,
    vocabulary: Vocabulary,
    folder: Path,
    *,
    parameters: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a Hugging Face folder: config, safetensors, tokenizer, tokenizer config, vocabulary.

    Args:
        model: Model to save.
        vocabulary: Vocabulary of the model.
        folder: Existing local folder.
        parameters: All parameters, whole, by name, when ``model`` holds shards; None when
            ``model`` is whole.
    """
    if parameters is not None:
        # from a model that was loaded as shards, transformers saves wrong names of tensors
        with torch.device("meta"):
            model = Qwen2_5_VLForConditionalGeneration(model.config)
    model.save_pretrained(folder, state_dict=parameters)
    vocabulary.save(folder)
    (folder / TOKENIZER_CONFIG_FILE).write_text(json.dumps(_TOKENIZER_CONFIG, indent=2))
