"""A history that passed the model once, on which continuations go on token by token.

Axes: N continuations, L tokens, D hidden.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from mmtpp.model.batch import Batch
from mmtpp.model.event_model import EventModel


class CachedHistory:
    """The cached keys and values of N continuations, and where their next token stands.

    Attributes:
        last: (N, D) what the model makes of the history's last token.
    """

    def __init__(
        self, model: EventModel, cache: DynamicCache, position: int, last: torch.Tensor
    ) -> None:
        self._model, self._cache, self._position = model, cache, position
        self.last = last

    @classmethod
    def of(cls, model: EventModel, history: Batch, size: int) -> "CachedHistory":
        """After a history of one plain segment, which passes the model once."""
        cache = DynamicCache()
        found = model.base.model.language_model(
            inputs_embeds=model.embed(history),
            position_ids=history.position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(size)
        last = found.last_hidden_state[:, -1].expand(size, -1)
        return cls(model, cache, int(history.position_ids.max()) + 1, last)

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._cache.get_seq_length()

    def feed(self, ids: NDArray[np.integer]) -> torch.Tensor:
        """Add (N, L) tokens; returns (N, D) what the model makes of the last of each."""
        model = self._model
        device = model.head.weight.device
        input_ids = torch.as_tensor(ids.astype(np.int64), device=device)
        places = torch.arange(self._position, self._position + ids.shape[1], device=device)
        found = model.base.model.language_model(
            inputs_embeds=model.embedding(input_ids),
            position_ids=places.expand(3, len(ids), -1),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._position += ids.shape[1]
        return found.last_hidden_state[:, -1]

    def cut(self, length: int) -> None:
        """Take tokens off again, until there are ``length``; all of them text."""
        surplus = self.length - length
        self._position -= surplus
        self._cache.crop(-surplus)


def same_for_all(ids: Sequence[int], size: int) -> NDArray[np.int32]:
    """(N, L) the same tokens for every continuation."""
    return np.tile(np.array(ids, dtype=np.int32), (size, 1))
