"""The model that training and evaluation share: a packed row in, a likelihood per label out.

Axes: T tokens, N labels, V vocabulary, D width, F frames, K types.
"""

from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from mmtpp.model.batch import Batch
from mmtpp.model.lora import attach_lora, load_adapter, save_adapter
from mmtpp.model.qwen_vl import build_tiny, load_base, save_base
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary


class EventModel(nn.Module):
    """Qwen2.5-VL, with or without LoRA, applied to packed rows.

    Each distinct frame passes the vision tower once, and the head sees only the positions that
    predict a label.

    Args:
        backbone: the model itself, or PEFT around it.
    """

    def __init__(self, backbone: Qwen2_5_VLForConditionalGeneration | PeftModel) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def base(self) -> Qwen2_5_VLForConditionalGeneration:
        """The Hugging Face model, PEFT layers included."""
        if isinstance(self.backbone, PeftModel):
            return self.backbone.get_base_model()  # pyright: ignore[reportReturnType]
        return self.backbone

    def forward(
        self, batch: Batch, type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score every label of a row.

        A plain tuple, because ZeRO-3 looks for tensors in what a module returns.

        Args:
            batch: one packed row.
            type_ids: (K,) ids of the byte tokens of the valid types, to predict among them.

        Returns:
            nll_N: (N,) float32, nats of each label.
            best_type_N: (N,) int64, at each label the index into ``type_ids`` of the most likely
                type, meaningful where the label is a type; None without ``type_ids``.
        """
        model = self.base
        embeds_1TD = model.model.language_model.embed_tokens(batch.input_ids)
        tower = model.model.visual
        trained = self.training and any(p.requires_grad for p in tower.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            cells = tower(batch.pixel_values, grid_thw=batch.grid).pooler_output
        cells_FCD = cells.view(len(batch.grid), -1, cells.shape[-1])
        shown = cells_FCD[batch.image_frame].reshape(-1, cells.shape[-1])
        embeds_1TD = embeds_1TD.masked_scatter(
            batch.image_mask[..., None].expand_as(embeds_1TD), shown.to(embeds_1TD.dtype)
        )
        # keeps the tower in the graph of a row without images, at no effect
        embeds_1TD = embeds_1TD + 0.0 * cells.sum()
        hidden_TD = model.model.language_model(
            inputs_embeds=embeds_1TD,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,  # the cache ignores packing, silently
        ).last_hidden_state[0]
        logits_NV = model.lm_head(hidden_TD[batch.labels - 1]).float()
        targets_N = batch.input_ids[0, batch.labels]
        nll_N = nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")
        best = None if type_ids is None else logits_NV[:, type_ids].argmax(dim=-1)
        return nll_N, best


def build_event_model(
    *,
    path: Path | None,
    vocabulary: Vocabulary,
    lora_rank: int,
    lora_alpha: int,
    lora_dropout: float,
    activation_checkpointing: bool,
    seed: int,
    dtype: torch.dtype,
) -> EventModel:
    """Load or initialise the backbone and prepare what is trained.

    Args:
        path: local folder of the base model; None builds a random ``tiny``.
        vocabulary: of the event store; the model's must be the same.
        lora_rank: 0 for all parameters.
        lora_alpha: see ``attach_lora``.
        lora_dropout: see ``attach_lora``.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        seed: of the random initialisation, LoRA's included.
        dtype: of the weights.

    Raises:
        ModelError: the base model cannot be used or has another vocabulary.
    """
    if path is None:
        backbone = build_tiny(vocabulary, seed=seed, dtype=dtype)
    else:
        backbone, own = load_base(path, dtype=dtype)
        check_same_vocabulary(own.hash, vocabulary.hash, where=str(path))
    if activation_checkpointing:
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    backbone.train()  # from_pretrained leaves it in evaluation mode
    if lora_rank == 0:
        return EventModel(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = attach_lora(
            backbone, vocabulary, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout
        )
    return EventModel(adapted).train()


def load_event_model(
    *, path: Path, adapter: Path | None, dtype: torch.dtype
) -> tuple[EventModel, Vocabulary]:
    """Load a trained model for inference.

    Args:
        path: local folder of the base model.
        adapter: local folder of a LoRA adapter, or None.
        dtype: of the weights.

    Raises:
        ModelError: one of them cannot be used, or they do not belong together.
    """
    backbone, vocabulary = load_base(path, dtype=dtype)
    model = load_adapter(backbone, vocabulary, adapter) if adapter else backbone
    return EventModel(model).eval(), vocabulary


def save_trained(model: EventModel, vocabulary: Vocabulary, folder: Path, *, base: str) -> None:
    """Write what was trained: a PEFT adapter folder, or a whole Hugging Face folder."""
    if isinstance(model.backbone, PeftModel):
        save_adapter(model.backbone, vocabulary, folder, base=base)
    else:
        save_base(model.backbone, vocabulary, folder)
