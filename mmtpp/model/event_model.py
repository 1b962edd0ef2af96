"""The model that training and evaluation share: a packed row in, a likelihood per label out.

Axes: T tokens, N labels, V vocabulary, D width, F frames, K types.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from mmtpp.model.attention import use_packed_attention
from mmtpp.model.batch import Batch
from mmtpp.model.companions import write_companions
from mmtpp.model.lora import attach_lora, load_adapter, resume_adapter, save_adapter
from mmtpp.model.qwen_vl import TINY_LAYERS, TINY_WIDTH, build_tiny, load_base, save_base
from mmtpp.model.sharding import Sharding, Unsharded
from mmtpp.model.token_rows import TokenEmbedding, TokenHead
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
        language_model = self.base.model.language_model
        self.embedding = TokenEmbedding(language_model.embed_tokens)
        self.head = TokenHead(self.base.lm_head)
        use_packed_attention(language_model)

    @property
    def base(self) -> Qwen2_5_VLForConditionalGeneration:
        """The Hugging Face model, PEFT layers included."""
        if isinstance(self.backbone, PeftModel):
            return self.backbone.get_base_model()  # pyright: ignore[reportReturnType]
        return self.backbone

    def saved_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What ``save_trained`` writes: an adapter's trained parameters, else all of them."""
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad or not isinstance(self.backbone, PeftModel):
                yield name, parameter

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
        targets_N = batch.input_ids[0, batch.labels]
        return self.head(self.hidden(batch)[batch.predictors], targets_N, type_ids, batch.spread)

    def hidden(self, batch: Batch) -> torch.Tensor:
        """(T, D) what the language model makes of every token of a row."""
        return self.base.model.language_model(
            inputs_embeds=self.embed(batch),
            position_ids=batch.position_ids,
            attention_mask={"full_attention": None},  # none is made
            segments=batch.segments,
            use_cache=False,  # the cache ignores packing, silently
        ).last_hidden_state[0]

    @torch.inference_mode()
    def attention_of_last(self, batch: Batch) -> torch.Tensor:
        """(layers, T) float32 how much the last token of a row attends to each, the mean of heads.

        Args:
            batch: of one segment without branches.
        """
        if len(batch.segments.lengths) != 1 or any(batch.segments.blocks):
            raise ValueError("only a single segment without branches has a last token")
        weights: list[torch.Tensor] = []
        self.hidden(replace(batch, segments=replace(batch.segments, watched=weights)))
        return torch.stack(weights)

    def embed(self, batch: Batch) -> torch.Tensor:
        """(1, T, D) embeddings of a row's tokens, those of images from the vision tower."""
        model = self.base
        embeds_1TD = self.embedding(batch.input_ids)
        if batch.pixel_values is None:
            return embeds_1TD
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
        return embeds_1TD + 0.0 * cells.sum()


def build_event_model(
    *,
    path: Path | None,
    adapter: Path | None = None,
    vocabulary: Vocabulary,
    lora_rank: int,
    lora_alpha: int,
    lora_dropout: float,
    freeze_vision: bool,
    activation_checkpointing: bool,
    seed: int,
    dtype: torch.dtype,
    sharding: Sharding | None = None,
    tiny_width: int = TINY_WIDTH,
    tiny_layers: int = TINY_LAYERS,
) -> EventModel:
    """Load or initialise the backbone and prepare what is trained.

    Args:
        path: local folder of the base model; None builds a random ``tiny``.
        adapter: local folder of a LoRA adapter to go on from.
        vocabulary: of the event store; the model's must be the same.
        lora_rank: 0 for all parameters.
        lora_alpha: see ``attach_lora``.
        lora_dropout: see ``attach_lora``.
        freeze_vision: leave the vision tower as it is where all parameters are trained; LoRA always
            does.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        seed: of the random initialisation, LoRA's included.
        dtype: of the weights.
        sharding: of the parameters of a loaded model; whole when None.
        tiny_width: of a random ``tiny``.
        tiny_layers: of a random ``tiny``.

    Raises:
        ModelError: the base model cannot be used or has another vocabulary.
    """
    sharding = sharding or Unsharded()
    if path is None:
        backbone = build_tiny(
            vocabulary, seed=seed, dtype=dtype, width=tiny_width, layers=tiny_layers
        )
    else:
        with sharding.loading():
            backbone, own = load_base(path, dtype=dtype)
        check_same_vocabulary(own.hash, vocabulary.hash, where=str(path))
    if activation_checkpointing:
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    backbone.train()  # from_pretrained leaves it in evaluation mode
    if lora_rank == 0:
        backbone.model.visual.requires_grad_(not freeze_vision)
        return EventModel(backbone)
    # PEFT starts the added tokens' rows from those of the base
    rows = [backbone.get_input_embeddings().weight, backbone.lm_head.weight]
    with sharding.gathered(rows), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = attach_lora(
            backbone, vocabulary.added_ids, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout
        )
    if adapter is not None:
        resume_adapter(adapted, vocabulary, adapter)
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
        model: after training.
        vocabulary: of the model.
        folder: existing and local.
        base: URI of the base model.
        parameters: whole, by their names in the backbone, where those of ``model`` are shards.
        companions: Small files of the base, see ``read_companions``; not written with an adapter,
            which is loaded on its base.
    """
    if isinstance(model.backbone, PeftModel):
        save_adapter(model.backbone, vocabulary, folder, base=base, parameters=parameters)
    else:
        save_base(model.backbone, vocabulary, folder, parameters=parameters)
        write_companions(companions or {}, folder)
