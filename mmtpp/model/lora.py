"""LoRA on the language model, with the rows of the added tokens trained beside it."""

import json
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from mmtpp.compat.deepspeed_hooks import full_numel
from mmtpp.core.errors import ModelError
from mmtpp.model.adapter import CONFIG_FILE
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary, load_vocabulary

WEIGHTS_FILE = "adapter_model.safetensors"
# The full path keeps LoRA out of the vision tower, whose MLP uses the same names.
TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def attach_lora(
    model: Qwen2_5_VLForConditionalGeneration,
    added_ids: list[int],
    *,
    rank: int,
    alpha: int,
    dropout: float,
) -> PeftModel:
    """Freeze the model, add LoRA to its language model and make the added tokens' rows trainable.

    Args:
        model: the base; PEFT changes it in place.
        added_ids: of the vocabulary.
        rank: of the two factors beside each matrix.
        alpha: their product is scaled by ``alpha / rank``.
        dropout: of what goes into the first factor.

    Source: MM-TPP trains rank 16, alpha 64, dropout 0.1; trainable rows replace its full copies of
        embedding and head (0.6 M instead of 622 M parameters on the 3B).
    """
    rows = {"embed_tokens": added_ids}
    if not model.config.tie_word_embeddings:
        rows["lm_head"] = added_ids
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=TARGETS,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def load_adapter(
    model: Qwen2_5_VLForConditionalGeneration, vocabulary: Vocabulary, folder: Path
) -> PeftModel:
    """Put a saved adapter on its base, for inference; every tensor must find its place.

    Raises:
        ModelError: no adapter there, another vocabulary, or tensors that do not fit.
    """
    if not (folder / CONFIG_FILE).exists():
        raise ModelError("this is not an adapter folder", where=str(folder))
    check_same_vocabulary(vocabulary.hash, load_vocabulary(folder).hash, where=str(folder))
    weights = _weights_of(folder)
    try:
        adapted = PeftModel.from_pretrained(model, folder)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the adapter does not fit the base model: {error}", where=str(folder)
        ) from error
    with safe_open(weights, framework="pt") as saved:
        _check_names(set(saved.keys()), adapted, folder)
    return adapted


def resume_adapter(model: PeftModel, vocabulary: Vocabulary, folder: Path) -> None:
    """Give a fresh adapter the weights of a saved one, to train it further.

    Args:
        model: what ``attach_lora`` returned; its adapter whole, the base possibly sharded.
        vocabulary: of the model.
        folder: of the saved adapter, see ``check_adapter``.

    Raises:
        ModelError: it is of another vocabulary or another model.
    """
    check_same_vocabulary(vocabulary.hash, load_vocabulary(folder).hash, where=str(folder))
    tensors = load_file(_weights_of(folder))
    _check_names(set(tensors), model, folder)
    try:
        set_peft_model_state_dict(model, tensors)
    except RuntimeError as error:  # another shape
        raise ModelError(
            f"the adapter does not fit the base model: {error}", where=str(folder)
        ) from error


def _weights_of(folder: Path) -> Path:
    """The weights of an adapter folder. Where they are missing, PEFT would read a pickle next to
    them or ask the hub.

    Raises:
        ModelError: the folder has no weights as safetensors.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(
            f"the adapter folder has no {WEIGHTS_FILE}",
            where=str(folder),
            cause="the folder was copied in part, or holds weights in another format",
        )
    return path


def _check_names(names: set[str], model: PeftModel, folder: Path) -> None:
    # with PEFT's default, it asks the hub for the base's config.json
    expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if names != expected:
        difference = sorted(names ^ expected)
        raise ModelError(
            f"the adapter does not fit the base model: {len(difference)} tensors missing or "
            f"unexpected, first {difference[0]}",
            where=str(folder),
        )


def save_adapter(
    model: PeftModel,
    vocabulary: Vocabulary,
    folder: Path,
    *,
    base: str,
    parameters: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a PEFT folder that ``PeftModel.from_pretrained`` loads, with its vocabulary.

    Args:
        model: base with LoRA.
        vocabulary: saved beside the adapter and checked when it is loaded.
        folder: existing and local.
        base: URI of the base model, recorded in ``adapter_config.json``.
        parameters: the trained ones, whole, where those of ``model`` are shards.
    """
    # the embedding is the base's; asked, PEFT would look for the base on the hub
    model.save_pretrained(str(folder), state_dict=parameters, save_embedding_layers=False)
    vocabulary.save(folder)
    path = folder / CONFIG_FILE
    tree = json.loads(path.read_text())
    tree["base_model_name_or_path"] = base
    path.write_text(json.dumps(tree, indent=2, sort_keys=True))


def trainable_parameters(model: PeftModel | Qwen2_5_VLForConditionalGeneration) -> tuple[int, int]:
    """Trained and total parameter counts, of ZeRO-3's shards too."""
    sizes = [(full_numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
