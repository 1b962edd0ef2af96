"""Qwen2.5-VL: a vision tower with windows, M-RoPE, and the random ``tiny`` of the same family."""

from dataclasses import dataclass
from typing import Any

from mmtpp.model.backbones.family import TowerParts
from mmtpp.model.backbones.vision_family import VisionFamily
from mmtpp.model.processor import QWEN2_5_VL_IMAGES
from mmtpp.model.tokens.vocabulary import SPARE_ROWS, Vocabulary

TINY_WIDTH, TINY_LAYERS = 96, 3
_HEAD_WIDTH = 24
NO_TOKEN = -1  # an id that no text has


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen25VL(VisionFamily):
    """Qwen2.5-VL, in whose tower most layers attend within windows."""

    def tower_parts(self, model: Any, side: int) -> TowerParts | None:
        assert self.image_format is not None
        vision, tower = model.config.vision_config, model.model.visual
        patches = (side * self.image_format.merge) ** 2
        window = min(patches, (vision.window_size // self.image_format.patch_px) ** 2)
        full_layers = len(vision.fullatt_block_indexes)  # a patch attends to its whole frame
        return TowerParts(
            per_patch=(tower.patch_embed, tower.blocks),
            per_cell=(tower.merger,),
            patches=patches,
            cells=side**2,
            pairs=patches * (full_layers * patches + (vision.depth - full_layers) * window),
            width=vision.hidden_size,
        )


QWEN2_5_VL = Qwen25VL(
    model_type="qwen2_5_vl",
    title="Qwen2.5-VL",
    class_name="Qwen2_5_VLForConditionalGeneration",
    image_format=QWEN2_5_VL_IMAGES,
)


def tiny_config(
    vocabulary: Vocabulary, *, width: int = TINY_WIDTH, layers: int = TINY_LAYERS
) -> Any:
    """The architecture with 0.5 M parameters, and with at least the spare rows of the 3B.

    Args:
        vocabulary: Vocabulary of the event store.
        width: Width of the language model, a multiple of 24, the width of a head.
        layers: Number of layers of the language model.
    """
    heads = width // _HEAD_WIDTH
    has_videos = vocabulary.has_special("<|video_pad|>")
    return QWEN2_5_VL.model_class.config_class(
        text_config={
            "vocab_size": max(vocabulary.byte_base + SPARE_ROWS, vocabulary.num_tokens),
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
            "eos_token_id": vocabulary.end_of_turn,
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
        video_token_id=vocabulary.special("<|video_pad|>") if has_videos else NO_TOKEN,
        vision_start_token_id=vocabulary.special("<|vision_start|>"),
        vision_end_token_id=vocabulary.special("<|vision_end|>"),
        tie_word_embeddings=True,
    )
