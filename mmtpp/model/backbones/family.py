"""What the rest of the package needs to know of a family of models, and the default answers.

The defaults are those of a language model without images as transformers writes them: the layers in
``model.model``, the head in ``model.lm_head``, plain rotary positions. Most text families need no
more than their name and their class.

Drivers import the families, so torch is imported only for the types.

Axes: B sequences, T tokens, F frames, C cells of a frame, D width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmtpp.core.errors import ModelError
from mmtpp.model.processor import ImageFormat

if TYPE_CHECKING:
    import torch
    from torch import nn

_PROJECTIONS = r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


@dataclass(frozen=True, slots=True)
class Cells:
    """The vision tower's output for F frames.

    Attributes:
        first: (F, C, D) vectors that replace the embeddings of the image pads.
        deeper: (F, C, D) vectors that are added to the hidden states of the image pads after the
            first layers, one tensor a layer; empty for most families.
    """

    first: "torch.Tensor"
    deeper: "tuple[torch.Tensor, ...]" = ()


@dataclass(frozen=True, slots=True)
class TowerParts:
    """Sizes of a vision tower, for counting its operations on one frame.

    Attributes:
        per_patch: Modules that process every patch.
        per_cell: Modules that process every merged cell.
        patches: Number of patches of a frame.
        cells: Number of merged cells of a frame.
        pairs: Number of pairs of patches that attend to each other, the sum over the layers.
        width: Width of the attention.
    """

    per_patch: "tuple[nn.Module, ...]"
    per_cell: "tuple[nn.Module, ...]"
    patches: int
    cells: int
    pairs: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of models of transformers.

    Attributes:
        model_type: Name of the family in ``config.json``.
        title: Name of the family in messages and cards.
        class_name: Name of the class in transformers. Code in a model folder is never run.
        image_format: Patches and normalisation of images; None for a family without a vision tower.
    """

    model_type: str
    title: str
    class_name: str
    image_format: ImageFormat | None = None

    layers_path: ClassVar[str] = r"model\.layers"
    """Path of the layers within the model, as a pattern."""

    @property
    def model_class(self) -> Any:
        """Class of transformers."""
        import transformers

        return getattr(transformers, self.class_name)

    @property
    def lora_targets(self) -> str:
        """Pattern of the matrices that LoRA adapts: the full paths of all projections."""
        return rf".*{self.layers_path}\.\d+\.{_PROJECTIONS}"

    def language_model(self, model: Any) -> Any:
        """The embedding, the layers and the last norm: a model whose output are hidden states."""
        return model.model

    def vision_tower(self, model: Any) -> "nn.Module | None":
        """The vision tower; None without one."""
        del model

    def text_config(self, config: Any) -> Any:
        """The configuration of the language model."""
        return config.get_text_config()

    def position_ids(self, positions_3BT: "torch.Tensor") -> "torch.Tensor":
        """Positions as the language model takes them.

        Args:
            positions_3BT: int64 positions in time, height and width; equal for text.
        """
        return positions_3BT[0]

    def see(self, model: Any, pixel_values: "torch.Tensor", grid: "torch.Tensor") -> Cells:
        """Run the vision tower.

        Args:
            model: Model of the family.
            pixel_values: Patches of F frames, see ``ImageFormat.pixel_values``.
            grid: (F, 3) int64 number of patches in time, height and width.

        Raises:
            ModelError: The family has no vision tower.
        """
        del model, pixel_values, grid
        raise images_refused(self.title, where="a row with images")

    def deeper_inputs(
        self, deeper: "tuple[torch.Tensor, ...]", image_mask: "torch.Tensor"
    ) -> dict[str, Any]:
        """Arguments of the language model for vectors that are added after its first layers.

        Args:
            deeper: (I * C, D) vectors of all image pads of a row, one tensor a layer.
            image_mask: (1, T) bool, True at image pads.
        """
        del deeper, image_mask
        return {}

    def tower_parts(self, model: Any, side: int) -> TowerParts | None:
        """Sizes of the vision tower; None without one.

        Args:
            model: Model of the family.
            side: Number of merged cells along one side of a frame.
        """
        del model, side

    def check_config(self, config: Any, *, where: str) -> None:
        """Check that this package can compute a model of the family.

        Args:
            config: Configuration of the model.
            where: Location of the model, for the error.

        Raises:
            ModelError: A layer attends to a part of the tokens before it.
        """
        kinds = set(getattr(self.text_config(config), "layer_types", None) or ())
        if kinds - {"full_attention"}:
            raise ModelError(
                f"the model has layers of kind {', '.join(sorted(kinds))}",
                where=where,
                cause="packed rows and branches are computed for full attention only",
                setting="model.path: choose a model with full attention in every layer",
            )


def images_refused(title: str, *, where: str, setting: str = "template.images") -> ModelError:
    """The error for images that a model without a vision tower would have to see.

    Args:
        title: Name of the model's family.
        where: Location of the model or of the images.
        setting: Setting that shows the images, with its present value if it is known.
    """
    return ModelError(
        f"{title} has no vision tower and cannot see images",
        where=where,
        cause="the base model reads text only",
        setting=f"{setting}: set it to none, or set model.path to a model with a vision tower, "
        "such as Qwen2.5-VL",
    )
