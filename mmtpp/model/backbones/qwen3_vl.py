"""Qwen3-VL: patches of 16 pixels, and image features that are added after the first layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmtpp.model.backbones.family import TowerParts
from mmtpp.model.backbones.vision_family import VisionFamily
from mmtpp.model.processor import ImageFormat

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3VL(VisionFamily):
    """Qwen3-VL, whose tower gives features of several depths."""

    def deeper_inputs(
        self, deeper: "tuple[torch.Tensor, ...]", image_mask: "torch.Tensor"
    ) -> dict[str, Any]:
        return {"visual_pos_masks": image_mask, "deepstack_visual_embeds": list(deeper)}

    def tower_parts(self, model: Any, side: int) -> TowerParts | None:
        assert self.image_format is not None
        vision, tower = model.config.vision_config, model.model.visual
        patches = (side * self.image_format.merge) ** 2
        return TowerParts(
            per_patch=(tower.patch_embed, tower.blocks),
            per_cell=(tower.merger, tower.deepstack_merger_list),
            patches=patches,
            cells=side**2,
            pairs=vision.depth * patches**2,  # a patch attends to its whole frame in every layer
            width=vision.hidden_size,
        )


# normalisation as in the preprocessor_config.json of Qwen3-VL
_HALF = (0.5, 0.5, 0.5)
QWEN3_VL = Qwen3VL(
    model_type="qwen3_vl",
    title="Qwen3-VL",
    class_name="Qwen3VLForConditionalGeneration",
    image_format=ImageFormat(patch_px=16, merge=2, mean=_HALF, std=_HALF),
)
