"""Key-value cache of a history, from which continuations are decoded token by token.

Axes: N continuations, L tokens, D hidden.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel
from mmtpp.model.history_keys import HistoryKeys, num_common


class CachedHistory:
    """Keys and values of N continuations of one history.

    Args:
        model: Model that computed the keys and values.
        cache: Keys and values of every continuation.
        next_position: Position id of the next token.
        last_hidden: (N, D) hidden state of the history's last token.

    Attributes:
        last_hidden: (N, D) hidden state of the history's last token.
    """

    def __init__(
        self, model: EventModel, cache: DynamicCache, next_position: int, last_hidden: torch.Tensor
    ) -> None:
        self._model, self._cache, self._next_position = model, cache, next_position
        self.last_hidden = last_hidden

    @classmethod
    def build(
        cls, model: EventModel, history: Batch, size: int, known: HistoryKeys | None = None
    ) -> "CachedHistory":
        """Run a history through the model once and share its cache among continuations.

        Args:
            model: Model in evaluation mode.
            history: Batch of one row, with one segment and no branches.
            size: Number of continuations, N.
            known: Kept keys and values of a row that begins like this one, without images and older
                events; the tokens in common do not pass the model. None for none.
        """
        cache = DynamicCache()
        num_known = 0
        if known is not None:
            ids = history.input_ids[0].cpu().numpy()
            num_known = min(num_common(known.ids, ids), len(ids) - 1)  # the last has a result
        if known is not None and num_known:
            dtype = model.head.weight.dtype
            for layer, (keys, values) in enumerate(known.layers(num_known)):
                cache.update(keys.to(dtype), values.to(dtype), layer)
            inputs = {"inputs_embeds": model.embedding(history.input_ids[:, num_known:])}
        else:
            inputs = model.inputs(history)
        output = model.language_model(
            **inputs,
            position_ids=model.family.position_ids(history.position_ids[:, :, num_known:]),
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(size)
        last_hidden = output.last_hidden_state[:, -1].expand(size, -1)
        return cls(model, cache, int(history.position_ids.max()) + 1, last_hidden)

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return self._cache.get_seq_length()

    def append(self, ids: NDArray[np.integer]) -> torch.Tensor:
        """Append tokens to every continuation.

        Args:
            ids: (N, L) text tokens.

        Returns:
            (N, D) hidden state of the last token of every continuation.
        """
        model = self._model
        input_ids = torch.as_tensor(ids.astype(np.int64), device=model.head.weight.device)
        return self.append_embeddings(model.embedding(input_ids))

    def append_embeddings(self, embeds_NLD: torch.Tensor) -> torch.Tensor:
        """Append tokens that are given as (N, L, D) vectors; returns what ``append`` returns."""
        size, length = embeds_NLD.shape[:2]
        positions = torch.arange(
            self._next_position, self._next_position + length, device=embeds_NLD.device
        )
        output = self._model.language_model(
            inputs_embeds=embeds_NLD,
            position_ids=self._model.family.position_ids(positions.expand(3, size, -1)),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._next_position += length
        return output.last_hidden_state[:, -1]

    def crop(self, length: int) -> None:
        """Remove the last tokens, which must be text tokens.

        Args:
            length: Number of tokens that remain in the cache.
        """
        surplus = self.length - length
        self._next_position -= surplus
        self._cache.crop(-surplus)


def repeat_tokens(ids: Sequence[int], size: int) -> NDArray[np.int32]:
    """(N, L) the same tokens for every continuation."""
    return np.tile(np.array(ids, dtype=np.int32), (size, 1))
