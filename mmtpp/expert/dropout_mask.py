"""The random mask of dropout in a training step, the same whichever ranks share the batch."""

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.expert.image_features import IMAGE_FEATURES
from mmtpp.expert.network import TEXT_FEATURES, DropoutMask, NetworkSize


def draw_mask(
    size: NetworkSize,
    batch_size: int,
    places: NDArray[np.int64] | None,
    *,
    dropout: float,
    memory_dropout: float,
    seed: int,
) -> DropoutMask | None:
    """Draw the values that dropout keeps in a step; None without dropout.

    The mask of the whole batch is drawn, so that each event has the same one on any number of
    ranks.

    Args:
        size: Size of the network.
        batch_size: Number of events in the batch, on all ranks.
        places: Places of this rank's events in the batch; None for all events.
        dropout: Probability of dropout of the widest layer and of the features of text and image.
        memory_dropout: Probability of dropout of the columns of the memory.
        seed: Seed of the step.
    """
    if not dropout and not memory_dropout:
        return None
    generator = torch.Generator()
    generator.manual_seed(seed % 2**63)
    of_rank = None if places is None else torch.from_numpy(places)

    def draw(width: int, probability: float) -> torch.Tensor:
        is_kept = torch.empty(batch_size, width)
        is_kept.bernoulli_(1 - probability, generator=generator)
        return is_kept if of_rank is None else is_kept[of_rank]

    wide = draw(2 * size.width, dropout)
    text = draw(TEXT_FEATURES if size.num_words else 0, dropout)
    image = draw(IMAGE_FEATURES if size.reads_images else 0, dropout)
    memory = draw(size.num_columns if memory_dropout else 0, memory_dropout)
    return DropoutMask(wide, text, image, memory)
