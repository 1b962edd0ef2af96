"""Load and save base models of every family, as Hugging Face folders; build the random ``tiny``."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmtpp.compat.deepspeed_hooks import full_shape
from mmtpp.compat.transformers_hooks import set_attention
from mmtpp.core.errors import ModelError
from mmtpp.model.backbones.qwen2_5_vl import QWEN2_5_VL, TINY_LAYERS, TINY_WIDTH, tiny_config
from mmtpp.model.backbones.registry import BASE_FOLDER_HINT, family_of, family_of_folder
from mmtpp.model.parameters.own_rows import add_own_rows, join_own_rows, own_rows_of
from mmtpp.model.parameters.sharding import Sharding, Unsharded
from mmtpp.model.tokens.vocabulary import Vocabulary, load_vocabulary

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
# without this file transformers ignores how tokenizer.json splits texts and uses Qwen2's rules
_TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast"}


def build_tiny(
    vocabulary: Vocabulary,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    width: int = TINY_WIDTH,
    layers: int = TINY_LAYERS,
) -> Any:
    """Build a randomly initialised ``tiny`` model; the same seed gives the same weights."""
    config = tiny_config(vocabulary, width=width, layers=layers)
    set_attention(config, "sdpa")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = QWEN2_5_VL.model_class(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def tiny_without_weights(vocabulary: Vocabulary, *, width: int, layers: int) -> Any:
    """Build a ``tiny`` on the meta device: parameters have shapes, but no memory."""
    config = tiny_config(vocabulary, width=width, layers=layers)
    with torch.device("meta"):
        return QWEN2_5_VL.model_class(config)


def load_base(
    folder: Path, *, dtype: torch.dtype, sharding: Sharding | None = None
) -> tuple[Any, Vocabulary]:
    """Load weights (only safetensors) and vocabulary from a local Hugging Face folder.

    Added tokens for which the embedding has no row get rows of their own, see ``own_rows``.

    Args:
        folder: Folder of the base model.
        dtype: Type of the weights.
        sharding: Sharding of the parameters; None loads the whole model.

    Raises:
        ModelError: The folder is incomplete, the family is unknown, or the weights do not fit it.
    """
    sharding = sharding or Unsharded()
    family = family_of_folder(folder)
    vocabulary = load_vocabulary(folder)
    try:
        with sharding.loading():
            # a pair, because of output_loading_info
            loaded: Any = family.model_class.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the model cannot be loaded: {error}", where=str(folder), cause=BASE_FOLDER_HINT
        ) from error
    model, report = loaded
    problems = {key: sorted(map(str, keys)) for key, keys in report.items() if keys}
    if problems:
        raise ModelError(f"the weights do not fit the architecture: {problems}", where=str(folder))
    family.check_config(model.config, where=str(folder))
    tables = [family.language_model(model).embed_tokens, model.lm_head]
    add_own_rows(model, tables, vocabulary.num_tokens, sharding)
    return model, vocabulary


def save_base(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    folder: Path,
    *,
    parameters: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a Hugging Face folder: config, safetensors, tokenizer, tokenizer config, vocabulary.

    Args:
        model: Model to save.
        vocabulary: Vocabulary of the model.
        folder: Existing local folder.
        parameters: All parameters, whole, by name, when ``model`` holds shards; None when
            ``model`` is whole.
    """
    family = family_of(model)
    embedding = family.language_model(model).embed_tokens
    own = own_rows_of(embedding)
    if own is not None and parameters is None:
        parameters = dict(model.named_parameters())
    if parameters is not None:
        config = copy.deepcopy(model.config)
        if own is not None:
            num_tokens = full_shape(embedding.weight)[0] + full_shape(own)[0]
            family.text_config(config).vocab_size = num_tokens
        # from a model that was loaded as shards, transformers saves wrong names of tensors
        with torch.device("meta"):
            model = family.model_class(config)
        parameters = join_own_rows(parameters)
    model.save_pretrained(folder, state_dict=parameters)
    vocabulary.save(folder)
    (folder / TOKENIZER_CONFIG_FILE).write_text(json.dumps(_TOKENIZER_CONFIG, indent=2))
