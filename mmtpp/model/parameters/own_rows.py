"""Rows of tokens for which the base model's embedding has no row.

The added tokens of the vocabulary need embedding rows. A base with enough spare rows uses them, and
nothing here happens. To another base the missing rows are added as separate parameters beside the
embedding, and beside the head if the head has its own matrix. The base's matrices are not resized:
with ZeRO-3 they are shards, and LoRA must not change them.

The new rows start at random around the existing ones: every column has the mean and the standard
deviation of the embedding's column. They depend on the base alone, so a base is the same model in
every run.

On disk nothing is separate. An adapter holds the rows as PEFT's trainable tokens, and a whole model
has one longer matrix.

Axes: V rows of the base, R own rows, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from peft.utils import TrainableTokensWrapper
from torch import nn

from mmtpp.compat.deepspeed_hooks import full_shape
from mmtpp.model.parameters.sharding import Sharding

OWN_ROWS = "own_rows"
SEED = 0


def add_own_rows(model: Any, modules: list[nn.Module], num_tokens: int, sharding: Sharding) -> None:
    """Give tokens without a row in the base a row of their own.

    Args:
        model: Base model, which is changed in place if it has too few rows.
        modules: Embedding and head.
        num_tokens: Number of tokens of the vocabulary.
        sharding: Sharding of the model's parameters.
    """
    missing = num_tokens - full_shape(_weight(modules[0]))[0]
    if missing <= 0:
        return
    embedding, head = modules
    embedding.register_parameter(OWN_ROWS, _initial_rows(embedding, missing, sharding))
    tied = model.config.tie_word_embeddings
    rows = embedding.own_rows if tied else _initial_rows(head, missing, sharding)
    head.register_parameter(OWN_ROWS, rows)  # pyright: ignore[reportArgumentType]


def _weight(module: nn.Module) -> nn.Parameter:
    return module.weight  # pyright: ignore[reportReturnType]


def _initial_rows(module: nn.Module, size: int, sharding: Sharding) -> nn.Parameter:
    weight = _weight(module)
    noise = torch.randn(
        (size, full_shape(weight)[1]), generator=torch.Generator().manual_seed(SEED)
    )
    with sharding.gathered([weight]), torch.no_grad():
        std_D, mean_D = torch.std_mean(weight, dim=0)
        rows_RD = mean_D.float() + std_D.float() * noise.to(weight.device)
        return nn.Parameter(rows_RD.to(weight.dtype))


def own_rows_of(module: nn.Module) -> nn.Parameter | None:
    """(R, D) own rows of an embedding or head, of the ids from V on; None without any."""
    return getattr(module, OWN_ROWS, None)


def trained_ids(embedding: nn.Module, added_ids: list[int]) -> list[int]:
    """Ids whose rows are trained with LoRA: the added tokens and all tokens with own rows.

    Args:
        embedding: The embedding.
        added_ids: Ids of the vocabulary's added tokens.
    """
    own = own_rows_of(embedding)
    if own is None:
        return added_ids
    first = full_shape(_weight(embedding))[0]
    return sorted({*added_ids, *range(first, first + full_shape(own)[0])})


def take_rows(module: nn.Module, ids: list[int]) -> torch.Tensor:
    """(len(ids), D) rows of tokens in a whole matrix and its own rows, which are then removed."""
    rows = torch.cat([_weight(module).detach(), module.own_rows.detach()])[ids]  # pyright: ignore
    del module.own_rows
    return rows


def join_own_rows(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters in which own rows follow the rows of their matrix, as transformers saves them."""
    joined = dict(parameters)
    for name in parameters:
        if name.endswith(f".{OWN_ROWS}"):
            weight = f"{name.removesuffix(OWN_ROWS)}weight"
            joined[weight] = torch.cat([joined[weight], joined.pop(name)])
    return joined


def enlarge_wrapped(model: Any, text_config: Any) -> None:
    """Lengthen the matrices of a whole model with PEFT's layers, so that PEFT can merge all rows.

    Args:
        model: Model whose embedding, and head, PEFT wraps; changed in place.
        text_config: Configuration of its language model; changed in place.
    """
    weights: dict[int, tuple[nn.Parameter, int]] = {}
    for module in model.modules():
        if isinstance(module, TrainableTokensWrapper):
            layer: Any = module.token_adapter
            weight = layer.base_layer.weight
            weights[id(weight)] = (weight, 1 + max(layer.token_indices[layer.active_adapters[0]]))
    for weight, num_tokens in weights.values():
        if num_tokens > len(weight):
            new = weight.data.new_zeros((num_tokens - len(weight), weight.shape[1]))
            weight.data = torch.cat([weight.data, new])
            text_config.vocab_size = num_tokens
