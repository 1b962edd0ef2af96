"""The model of training and evaluation: reads a packed row, returns a likelihood per label.

Axes: T tokens, N labels, D width, K types.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from mmtpp.model.attention import NO_MASK, use_packed_attention
from mmtpp.model.backbones.family import Cells
from mmtpp.model.backbones.qwen2_5_vl import TINY_LAYERS, TINY_WIDTH
from mmtpp.model.backbones.registry import family_of
from mmtpp.model.base_folder import build_tiny, load_base, save_base
from mmtpp.model.batch import Batch
from mmtpp.model.folders.companions import write_companions
from mmtpp.model.older_vectors import older_vectors
from mmtpp.model.parameters.lora import attach_lora, load_adapter, resume_adapter, save_adapter
from mmtpp.model.parameters.sharding import Sharding, Unsharded
from mmtpp.model.parameters.token_rows import TokenEmbedding, TokenHead
from mmtpp.model.tokens.vocabulary import Vocabulary, check_same_vocabulary


class EventModel(nn.Module):
    """A base model of any family, with or without LoRA, applied to packed rows.

    The vision tower processes each distinct frame once. The head processes only the positions that
    predict a label.

    Args:
        backbone: The Hugging Face model, or a PEFT model around it.

    Attributes:
        family: Family of the base model.
    """

    def __init__(self, backbone: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.family = family_of(self.base)
        self.embedding = TokenEmbedding(self.language_model.embed_tokens)
        self.head = TokenHead(self.base.lm_head)
        use_packed_attention(self.language_model)

    @property
    def base(self) -> Any:
        """The Hugging Face model, PEFT layers included."""
        if isinstance(self.backbone, PeftModel):
            return self.backbone.get_base_model()
        return self.backbone

    @property
    def language_model(self) -> Any:
        """The embedding, the layers and the last norm of the base model."""
        return self.family.language_model(self.base)

    def saved_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters that ``save_trained`` writes: those of the adapter, or all without LoRA."""
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad or not isinstance(self.backbone, PeftModel):
                yield name, parameter

    def forward(
        self, batch: Batch, type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score every label of a row.

        The result is a plain tuple, because ZeRO-3 searches the output of a module for tensors.

        Args:
            batch: One packed row.
            type_ids: (K,) ids of the byte tokens of the valid types; None predicts no types.

        Returns:
            nll_N: (N,) float32, nats of each label.
            best_type_N: (N,) int64, index into ``type_ids`` of the most likely type at each label,
                meaningful where the label is a type; None without ``type_ids``.
        """
        label_ids_N = batch.input_ids[0, batch.labels]
        return self.head(self.hidden(batch)[batch.predictors], label_ids_N, type_ids, batch.spread)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """(T, D) hidden states of a row, the output of the language model's last layer."""
        return self.language_model(
            **self.inputs(batch),
            position_ids=self.family.position_ids(batch.position_ids),
            attention_mask=NO_MASK,
            segments=batch.segments,
            use_cache=False,  # with a cache, packing would be silently ignored
        ).last_hidden_state[0]

    @torch.inference_mode()
    def last_token_attention(self, batch: Batch) -> torch.Tensor:
        """(layers, T) float32 attention weights of a row's last token, the mean of the heads.

        Args:
            batch: Row of one segment without branches.
        """
        if len(batch.segments.lengths) != 1 or any(batch.segments.blocks):
            raise ValueError("only a single segment without branches has a last token")
        weights: list[torch.Tensor] = []
        self.hidden(replace(batch, segments=replace(batch.segments, watched=weights)))
        return torch.stack(weights)

    def embed(self, batch: Batch) -> torch.Tensor:
        """(1, T, D) embeddings of a row's tokens; the vision tower gives those of image pads."""
        return self.inputs(batch)["inputs_embeds"]

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Arguments of the language model for a row: its embeddings, and the vectors that some
        families add to the images after the first layers."""
        cells = self.see_frames(batch)
        embeds_1TD = self._token_vectors(batch, None if cells is None else cells.first)
        if cells is None:
            return {"inputs_embeds": embeds_1TD}
        width = cells.first.shape[-1]
        shown = cells.first[batch.image_frame].reshape(-1, width)
        embeds_1TD = embeds_1TD.masked_scatter(
            batch.image_mask[..., None].expand_as(embeds_1TD), shown.to(embeds_1TD.dtype)
        )
        # keeps the tower in the graph of a row without images; the values do not change
        unused = sum((layer.sum() for layer in cells.deeper), cells.first.sum())
        deeper = tuple(layer[batch.image_frame].reshape(-1, width) for layer in cells.deeper)
        return {
            "inputs_embeds": embeds_1TD + 0.0 * unused,
            **self.family.deeper_inputs(deeper, batch.image_mask),
        }

    def _token_vectors(self, batch: Batch, cells_FCD: torch.Tensor | None) -> torch.Tensor:
        """(1, T, D) rows of a row's tokens; those of older events hold their content, too."""
        older = batch.older
        if older is None:
            return self.embedding(batch.input_ids)
        # one call, also without older events: with ZeRO-3 every rank makes the same calls
        parts = (batch.input_ids[0], older.code_ids.flatten(), older.distinct_text_ids)
        rows_TD, codes, texts_UD = self.embedding(torch.cat(parts)).split(list(map(len, parts)))
        codes_SBD = codes.view(*older.code_ids.shape, codes.shape[-1])
        content_SD = older_vectors(older, codes_SBD, texts_UD, cells_FCD)
        return rows_TD.index_add(0, older.at, content_SD)[None]

    def see_frames(self, batch: Batch) -> Cells | None:
        """What the vision tower gives for a row's frames; None without frames."""
        if batch.pixel_values is None:
            return None
        tower = self.family.vision_tower(self.base)
        trained = (
            self.training
            and tower is not None
            and any(parameter.requires_grad for parameter in tower.parameters())
        )
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.family.see(self.base, batch.pixel_values, batch.grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventModelSettings:
    """Settings of a model that is trained.

    Attributes:
        lora_rank: Rank of LoRA, see ``attach_lora``; 0 trains all parameters.
        lora_alpha: Scale of LoRA, see ``attach_lora``.
        lora_dropout: Dropout of LoRA, see ``attach_lora``.
        freeze_vision: Whether the vision tower is frozen when all parameters are trained; with LoRA
            the vision tower is always frozen.
        activation_checkpointing: Whether the backward pass computes activations again, to save
            memory.
        seed: Seed of the random initialisation, LoRA's included.
        dtype: Type of the weights.
        tiny_width: Width of a random ``tiny``.
        tiny_layers: Number of layers of a random ``tiny``.
    """

    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    freeze_vision: bool
    activation_checkpointing: bool
    seed: int
    dtype: torch.dtype
    tiny_width: int = TINY_WIDTH
    tiny_layers: int = TINY_LAYERS


def build_event_model(
    settings: EventModelSettings,
    vocabulary: Vocabulary,
    *,
    path: Path | None,
    adapter: Path | None = None,
    sharding: Sharding | None = None,
) -> EventModel:
    """Load or initialise the backbone and make the trained parameters trainable.

    Args:
        settings: Settings of the model.
        vocabulary: Vocabulary of the event store; the base model must have the same.
        path: Local folder of the base model; None builds a random ``tiny``.
        adapter: Local folder of a LoRA adapter to train further; None starts a new adapter.
        sharding: Sharding of a loaded model's parameters; None loads the whole model.

    Raises:
        ModelError: The base model cannot be used or has another vocabulary.
    """
    sharding = sharding or Unsharded()
    backbone = _build_backbone(settings, vocabulary, path, sharding)
    if settings.activation_checkpointing:
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    backbone.train()  # from_pretrained leaves it in evaluation mode
    if settings.lora_rank == 0:
        tower = family_of(backbone).vision_tower(backbone)
        if tower is not None:
            tower.requires_grad_(not settings.freeze_vision)
        return EventModel(backbone)
    # PEFT copies the added tokens' rows from the base
    matrices = [backbone.get_input_embeddings().weight, backbone.lm_head.weight]
    with sharding.gathered(matrices), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        adapted = attach_lora(
            backbone,
            vocabulary.added_ids,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
        )
    if adapter is not None:
        resume_adapter(adapted, vocabulary, adapter)
    return EventModel(adapted).train()


def _build_backbone(
    settings: EventModelSettings, vocabulary: Vocabulary, path: Path | None, sharding: Sharding
) -> Any:
    """Load the base model, or build a random ``tiny``."""
    if path is None:
        return build_tiny(
            vocabulary,
            seed=settings.seed,
            dtype=settings.dtype,
            width=settings.tiny_width,
            layers=settings.tiny_layers,
        )
    backbone, base_vocabulary = load_base(path, dtype=settings.dtype, sharding=sharding)
    check_same_vocabulary(base_vocabulary.hash, vocabulary.hash, where=str(path))
    return backbone


def load_event_model(
    *, path: Path, adapter: Path | None, dtype: torch.dtype
) -> tuple[EventModel, Vocabulary]:
    """Load a trained model for inference.

    Args:
        path: Local folder of the base model.
        adapter: Local folder of a LoRA adapter, or None.
        dtype: Type of the weights.

    Raises:
        ModelError: The model or the adapter cannot be used, or they do not belong together.
    """
    backbone, vocabulary = load_base(path, dtype=dtype)
    model = load_adapter(backbone, vocabulary, adapter) if adapter else backbone
    return EventModel(model).eval(), vocabulary


def save_trained(
    model: EventModel,
    vocabulary: Vocabulary,
    folder: Path,
    *,
    base: str,
    parameters: dict[str, torch.Tensor] | None = None,
    companions: Mapping[str, bytes] | None = None,
) -> None:
    """Write the trained model: a PEFT adapter folder, or a whole Hugging Face folder.

    Args:
        model: The trained model.
        vocabulary: Vocabulary of the model.
        folder: Existing local folder.
        base: URI of the base model.
        parameters: Whole parameters by their names in the backbone, when ``model`` holds shards;
            None when ``model`` is whole.
        companions: Small files of the base, see ``read_companions``; not written with an adapter,
            because an adapter is loaded on its base.
    """
    if isinstance(model.backbone, PeftModel):
        save_adapter(model.backbone, vocabulary, folder, base=base, parameters=parameters)
    else:
        save_base(model.backbone, vocabulary, folder, parameters=parameters)
        write_companions(companions or {}, folder)
