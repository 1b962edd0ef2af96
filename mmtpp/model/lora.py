"""LoRA on the language model, together with trained embedding rows of the added tokens."""

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
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from mmtpp.compat.deepspeed_hooks import full_numel
from mmtpp.core.errors import ModelError
from mmtpp.model.adapter import CONFIG_FILE
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary, load_vocabulary

WEIGHTS_FILE = "adapter_model.safetensors"
# The full path excludes the vision tower, whose MLP has layers with the same names.
TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def attach_lora(
    model: Qwen2_5_VLForConditionalGeneration,
    added_ids: list[int],
    *,
    rank: int,
    alpha: int,
    dropout: float,
) -> PeftModel:
    """Freeze a model, add LoRA to its language model and make the added tokens' rows trainable.

    Args:
        model: Base model; PEFT changes it in place.
        added_ids: Ids of the vocabulary's added tokens.
        rank: Rank of the two factors that LoRA adds to each matrix.
        alpha: Scale of LoRA: the product of the factors is multiplied by ``alpha / rank``.
        dropout: Dropout of the input of the first factor.

    Source: MM-TPP trains rank 16, alpha 64, dropout 0.1. It trains full copies of embedding and
        head; here only the rows of the added tokens are trained (0.6 M instead of 622 M parameters
        on the 3B).
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
    """Load a saved adapter on its base model, for inference.

    Args:
        model: Base model; PEFT changes it in place.
        vocabulary: Vocabulary of the base model.
        folder: Folder of the adapter.

    Raises:
        ModelError: The folder contains no adapter, its vocabulary differs, or its tensors are not
            exactly those that the model expects.
    """
    if not (folder / CONFIG_FILE).exists():
        raise ModelError("this is not an adapter folder", where=str(folder))
    check_same_vocabulary(vocabulary.hash, load_vocabulary(folder).hash, where=str(folder))
    weights = _find_weights(folder)
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
    """Copy the weights of a saved adapter to a new one, which is then trained further.

    Args:
        model: Result of ``attach_lora``. The adapter is whole, the base may be sharded.
        vocabulary: Vocabulary of the model.
        folder: Folder of the saved adapter, see ``check_adapter``.

    Raises:
        ModelError: The adapter belongs to another vocabulary or another model.
    """
    check_same_vocabulary(vocabulary.hash, load_vocabulary(folder).hash, where=str(folder))
    tensors = load_file(_find_weights(folder))
    _check_names(set(tensors), model, folder)
    try:
        set_peft_model_state_dict(model, tensors)
    except RuntimeError as error:  # a tensor has another shape
        raise ModelError(
            f"the adapter does not fit the base model: {error}", where=str(folder)
        ) from error


def _find_weights(folder: Path) -> Path:
    """The path of an adapter's weights.

    Without this check PEFT would read a pickle in the folder, or ask the Hugging Face Hub.

    Raises:
        ModelError: The folder has no weights in safetensors format.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(
            f"the adapter folder has no {WEIGHTS_FILE}",
            where=str(folder),
            cause="the folder was copied incompletely, or its weights have another format",
        )
    return path


def _check_names(names: set[str], model: PeftModel, folder: Path) -> None:
    # by default, PEFT asks the Hugging Face Hub for the base's config.json
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
    """Write a PEFT folder that ``PeftModel.from_pretrained`` can load, and the vocabulary.

    Args:
        model: Base model with LoRA.
        vocabulary: Vocabulary of the model, which is checked when the adapter is loaded.
        folder: Existing local folder.
        base: URI of the base model, recorded in ``adapter_config.json``.
        parameters: Whole trained parameters by name, when ``model`` holds shards; None when
            ``model`` is whole.
    """
    # the embedding belongs to the base; to save it, PEFT would look for the base on the hub
    model.save_pretrained(str(folder), state_dict=parameters, save_embedding_layers=False)
    vocabulary.save(folder)
    path = folder / CONFIG_FILE
    tree = json.loads(path.read_text())
    tree["base_model_name_or_path"] = base
    path.write_text(json.dumps(tree, indent=2, sort_keys=True))


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of trained parameters and of all parameters, also of a model sharded by ZeRO-3."""
    sizes = [(full_numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
