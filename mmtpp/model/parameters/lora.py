"""LoRA on the language model, together with trained embedding rows of the added tokens."""

import json
from pathlib import Path
from typing import Any

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
from transformers import PreTrainedModel

from mmtpp.compat.deepspeed_hooks import full_numel
from mmtpp.core.errors import ModelError
from mmtpp.model.backbones.registry import (
    check_same_family,
    family_of,
    record_family,
    recorded_family,
)
from mmtpp.model.folders.adapter import CONFIG_FILE
from mmtpp.model.parameters.own_rows import own_rows_of, take_rows, trained_ids
from mmtpp.model.tokens.vocabulary import Vocabulary, check_same_vocabulary, load_vocabulary

WEIGHTS_FILE = "adapter_model.safetensors"


def attach_lora(
    model: PreTrainedModel,
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
    family = family_of(model)
    ids = trained_ids(family.language_model(model).embed_tokens, added_ids)
    rows = {"embed_tokens": ids}
    if not model.config.tie_word_embeddings:
        rows["lm_head"] = ids
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # full paths exclude the vision tower, whose MLP has layers with the same names
        target_modules=family.lora_targets,
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    return _attach(model, config)


def _attach(model: Any, config: LoraConfig) -> PeftModel:
    """Let PEFT wrap a model, also where it trains rows that the base model does not have.

    PEFT starts a trained row from the base's row with the same id, and refuses an id without one.
    So it wraps the model with ids that exist, and gets the true ids and rows afterwards. A model of
    which all rows exist is wrapped with the true ids.
    """
    ids: dict[str, list[int]] = dict(config.trainable_token_indices or {})  # pyright: ignore
    language_model = family_of(model).language_model(model)
    modules = {"embed_tokens": language_model.embed_tokens, "lm_head": model.lm_head}
    if own_rows_of(language_model.embed_tokens) is None:
        return get_peft_model(model, config)
    starts = {name: take_rows(modules[name], ids[name]) for name in ids}
    if "lm_head" not in ids:
        del model.lm_head.own_rows  # the embedding's
    config.trainable_token_indices = {name: [0] * len(ids[name]) for name in ids}
    adapted = get_peft_model(model, config)
    config.trainable_token_indices = ids
    wrapped = {"embed_tokens": language_model.embed_tokens, "lm_head": model.lm_head}
    for name, start in starts.items():
        layer = wrapped[name].token_adapter
        (adapter,) = layer.active_adapters
        layer.token_indices[adapter] = ids[name]
        rows = layer.trainable_tokens_delta[adapter]
        rows.data = start.to(rows)
        layer.trainable_tokens_original[adapter] = start.to(rows)
    return adapted


def load_adapter(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path) -> PeftModel:
    """Load a saved adapter on its base model, for inference.

    Args:
        model: Base model; PEFT changes it in place.
        vocabulary: Vocabulary of the base model.
        folder: Folder of the adapter.

    Raises:
        ModelError: The folder contains no adapter, its family or vocabulary differs, or its tensors
            are not exactly those that the model expects.
    """
    if not (folder / CONFIG_FILE).exists():
        raise ModelError("this is not an adapter folder", where=str(folder))
    check_same_family(family_of(model).model_type, recorded_family(str(folder)), where=str(folder))
    check_same_vocabulary(vocabulary.hash, load_vocabulary(folder).hash, where=str(folder))
    weights = _find_weights(folder)
    language_model = family_of(model).language_model(model)
    try:
        if own_rows_of(language_model.embed_tokens) is None:
            adapted = PeftModel.from_pretrained(model, folder)
        else:
            config: Any = LoraConfig.from_pretrained(str(folder))
            ids = trained_ids(language_model.embed_tokens, vocabulary.added_ids)
            if any(saved != ids for saved in config.trainable_token_indices.values()):
                raise ValueError("it has rows of other tokens")
            config.base_model_name_or_path = model.name_or_path
            adapted = _attach(model, config)
            set_peft_model_state_dict(adapted, load_file(weights))
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
    base: Any = model.get_base_model()
    check_same_family(family_of(base).model_type, recorded_family(str(folder)), where=str(folder))
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
    record_family(model.get_base_model(), folder)
    path = folder / CONFIG_FILE
    tree = json.loads(path.read_text())
    tree["base_model_name_or_path"] = base
    path.write_text(json.dumps(tree, indent=2, sort_keys=True))


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of trained parameters and of all parameters, also of a model sharded by ZeRO-3."""
    sizes = [(full_numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
