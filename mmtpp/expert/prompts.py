"""Prompts of a network: vectors that new events train while the network stays as it is.

Source: PromptTPP (Xue et al., NeurIPS 2023): a pool of prompts with keys, from which the state of a
history chooses. There the history attends to the prompts in each layer; here their mean is added to
the inputs of the first layer and to the hidden state, because the networks have no attention.

Axes: N events, M prompts.
"""

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

PROMPTS = "prompt_pool."
"""Beginning of the names of a network's weights that belong to its prompts."""
_NUM_CHOSEN = 4
_TEMPERATURE = 0.1  # of the similarities, which are between -1 and 1


class PromptPool(nn.Module):
    """Prompts and their keys. New prompts are zero, so they change no forecast.

    Args:
        num_prompts: Number of prompts, M.
        width: Width of a prompt and of a key.
    """

    def __init__(self, num_prompts: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(num_prompts, width))
        self.prompts = nn.Parameter(torch.zeros(num_prompts, 2, width))

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the prompts whose keys are most similar to a state.

        Args:
            states: (N, width) states of histories.

        Returns:
            input_N: (N, width) what is added to the inputs of the first layer.
            hidden_N: (N, width) what is added to the hidden state.
        """
        similarity_NM = cosine_similarity(states[:, None], self.keys, dim=-1)
        nearest = similarity_NM.topk(min(_NUM_CHOSEN, len(self.keys)), dim=-1)
        weights = (nearest.values / _TEMPERATURE).softmax(-1)
        mean = (weights[..., None, None] * self.prompts[nearest.indices]).sum(1)
        return mean[:, 0], mean[:, 1]
