"""Embedding and head in which only the rows of the added tokens are trained.

In every forward pass of embedding and head, PEFT writes the trained rows into a copy of the whole
matrix and computes the gradient of the whole copy. On the 3B this costs 0.6 GB for a copy in
bfloat16, 0.6 GB for its gradient, and a product of labels x vocabulary x width. Here the trained
rows are looked up and multiplied separately. The parameters are PEFT's, so PEFT can save and load
adapters.

Axes: T tokens, N labels, V vocabulary, D width, R trained rows, K types.
"""

from collections.abc import Sequence

import torch
from peft.utils import TrainableTokensWrapper
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmtpp.compat.deepspeed_hooks import full_shape
from mmtpp.model.batch import SpreadLabels
from mmtpp.model.parameters.own_rows import own_rows_of

# Bytes of the float32 logits of a chunk of labels. With logarithms, gradients and logits in the
# model's type the peak is about four times this number, for any number of labels.
LOGITS_BYTES = 256 * 2**20


class TokenMatrix(nn.Module):
    """A matrix with one row per token, in which some rows are separate, trained parameters.

    Args:
        module: Embedding or head, plain or wrapped by PEFT.

    Attributes:
        weight: (V, D) matrix of the base model.
        rows: (R, D) separate rows; None without any.
        num_shared: Number of rows of the base model, V.
        num_tokens: Number of tokens with a row, separate rows included.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        rows, ids = None, []
        if isinstance(module, TrainableTokensWrapper):
            layer = module.token_adapter
            (name,) = layer.active_adapters
            rows, ids = layer.trainable_tokens_delta[name], layer.token_indices[name]
            module = layer.base_layer
        elif (own := own_rows_of(module)) is not None:
            first = full_shape(module.weight)[0]  # pyright: ignore[reportArgumentType]
            rows, ids = own, list(range(first, first + full_shape(own)[0]))
        # registered in this module so that ZeRO-3 gathers them for it
        self.weight: nn.Parameter = module.weight  # pyright: ignore[reportAttributeAccessIssue]
        self.rows: nn.Parameter | None = rows
        self.num_shared: int = full_shape(self.weight)[0]
        self.num_tokens: int = max(self.num_shared, 1 + max(ids, default=-1))
        self.register_buffer("ids", torch.tensor(ids, dtype=torch.int64), persistent=False)
        place = torch.full((self.num_tokens,), -1)
        place[ids] = torch.arange(len(ids))
        self.register_buffer("place", place, persistent=False)
        self.ids: torch.Tensor
        self.place: torch.Tensor

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """(..., D) rows of (...) int64 ids."""
        if self.rows is None:
            return functional.embedding(ids, self.weight)
        shared = functional.embedding(ids.clamp(max=self.num_shared - 1), self.weight)
        place = self.place[ids]
        trained = functional.embedding(place.clamp(min=0), self.rows).to(shared.dtype)
        return torch.where((place >= 0)[..., None], trained, shared)


class TokenEmbedding(TokenMatrix):
    """Embeds token ids."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(..., T, D) vectors of (..., T) int64 ids."""
        return self.vectors(ids)


class TokenHead(TokenMatrix):
    """Computes likelihoods of labels from hidden states, with few logits in memory at once."""

    def forward(
        self,
        hidden_ND: torch.Tensor,
        label_ids_N: torch.Tensor,
        type_ids: torch.Tensor | None,
        spread: SpreadLabels | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score labels.

        The backward pass computes the chunks again, so that the logits of only one chunk are in
        memory.

        Args:
            hidden_ND: Hidden states of the positions before the labels.
            label_ids_N: Token ids of the labels.
            type_ids: (K,) ids of the tokens of the valid types; None predicts no types.
            spread: Labels that are spread over several tokens; None without smoothing.

        Returns:
            nll_N: (N,) float32, nats of the labels. For spread labels the gradient is the gradient
                of the cross-entropy with the spread label.
            best_type_N: (N,) int64 index into ``type_ids`` of the most likely type; None without
                ``type_ids``.
        """
        num_labels = len(label_ids_N)
        size = max(1, LOGITS_BYTES // (4 * self.num_tokens))
        parts: list[Sequence[torch.Tensor]] = []
        for start in range(0, max(1, num_labels), size):
            part = slice(start, start + size)
            place_N = None if spread is None else spread.place[part]
            arguments = (hidden_ND[part], label_ids_N[part], type_ids, spread, place_N)
            if num_labels > size and torch.is_grad_enabled():
                parts.append(
                    checkpoint(
                        self._score, *arguments, use_reentrant=False, preserve_rng_state=False
                    )
                )
            else:
                parts.append(self._score(*arguments))
        nll, *best = (torch.cat(column) for column in zip(*parts, strict=True))
        return nll, best[0] if best else None

    def choose(self, hidden_ND: torch.Tensor, ids_K: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of some tokens, normalised among them; other logits are not computed.

        Args:
            hidden_ND: Hidden states of the positions before the predicted tokens.
            ids_K: (K,) int64 ids of the tokens.

        Returns:
            (N, K) float32, nats; the probabilities of a row sum to 1.
        """
        return functional.linear(hidden_ND, self.vectors(ids_K)).float().log_softmax(dim=-1)

    def logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """(N, V) float32 logits of every token."""
        logits_NV = functional.linear(hidden_ND, self.weight)
        if self.rows is not None:
            trained = functional.linear(hidden_ND, self.rows.to(hidden_ND.dtype))
            # every token without a row in the base has a separate one
            if self.num_tokens > self.num_shared:
                logits_NV = functional.pad(logits_NV, (0, self.num_tokens - self.num_shared))
            logits_NV[:, self.ids] = trained
        return logits_NV.float()

    def _score(
        self,
        hidden_ND: torch.Tensor,
        label_ids_N: torch.Tensor,
        type_ids: torch.Tensor | None,
        spread: SpreadLabels | None,
        place_N: torch.Tensor | None,
    ) -> Sequence[torch.Tensor]:
        logits_NV = self.logits(hidden_ND)
        nll_N = functional.cross_entropy(logits_NV, label_ids_N, reduction="none")
        if spread is not None and place_N is not None:
            # difference of the cross-entropies with the spread label and with the single token
            label_N = logits_NV.gather(1, label_ids_N[:, None])[:, 0]
            bytes_NB = logits_NV[:, spread.byte_ids]
            excess_N = label_N - (spread.weights[place_N] * bytes_NB).sum(dim=-1)
            excess_N = torch.where(place_N > 0, excess_N, 0.0)
            nll_N = nll_N + (excess_N - excess_N.detach())
        if type_ids is None:
            return (nll_N,)
        return nll_N, logits_NV[:, type_ids].argmax(dim=-1)
