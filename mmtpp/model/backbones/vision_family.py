"""What the families of Qwen's vision-language models share: their layout and M-RoPE.

Axes: see ``family``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmtpp.model.backbones.family import Cells, Family

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionFamily(Family):
    """A language model in ``model.model.language_model`` and a tower in ``model.model.visual``."""

    layers_path: ClassVar[str] = r"language_model\.layers"

    def language_model(self, model: Any) -> Any:
        return model.model.language_model

    def vision_tower(self, model: Any) -> "nn.Module | None":
        return model.model.visual

    def position_ids(self, positions_3BT: "torch.Tensor") -> "torch.Tensor":
        return positions_3BT

    def see(self, model: Any, pixel_values: "torch.Tensor", grid: "torch.Tensor") -> Cells:
        output = model.model.visual(pixel_values, grid_thw=grid)
        deeper = getattr(output, "deepstack_features", None) or ()
        first, *rest = (
            cells.view(len(grid), -1, cells.shape[-1]) for cells in (output.pooler_output, *deeper)
        )
        return Cells(first, tuple(rest))
