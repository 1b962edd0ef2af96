"""Architectures without weights, for planning and tests: Qwen2.5-VL 3B and 7B, or a folder's.

Source: the ``config.json`` of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mmtpp.config.model_settings import FullSize
from mmtpp.model.backbones.registry import family_of_folder

_TEXT = {
    "3b": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
    "7b": {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}


def full_size_config(preset: FullSize) -> Qwen2_5_VLConfig:
    """The configuration of a model; the 3B ties its embedding to its head, the 7B does not."""
    text = _TEXT[preset]
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "max_position_embeddings": 128_000,
            # sections sum to half a head: time 16, height 24, width 24
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
            "pad_token_id": None,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "out_hidden_size": text["hidden_size"],
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=151_655,
        video_token_id=151_656,
        vision_start_token_id=151_652,
        vision_end_token_id=151_653,
        tie_word_embeddings=preset == "3b",
    )


def build_without_weights(preset: FullSize) -> Qwen2_5_VLForConditionalGeneration:
    """Build a model on the meta device: parameters have shapes, but no memory."""
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(full_size_config(preset))


def planned_config(model: str) -> Any:
    """The configuration of a model to plan.

    Args:
        model: ``3b`` or ``7b`` for Qwen2.5-VL, or a local model folder.

    Raises:
        ModelError: The folder has no model of a known family.
    """
    if model == "3b" or model == "7b":
        return full_size_config(model)
    folder = Path(model).expanduser()
    family = family_of_folder(folder)
    config = family.model_class.config_class.from_pretrained(folder, local_files_only=True)
    family.check_config(config, where=model)
    return config
