"""ZeRO-3 while a model is built: no rank ever holds all of its parameters."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import deepspeed
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config


class Zero3Sharding:
    """Splits parameters among the ranks while they are read.

    Rank 0 maps the files and broadcasts each parameter; the other ranks never open them.

    Args:
        deepspeed_config: DeepSpeed's configuration with stage 3. torch.distributed must be
            initialised.
    """

    def __init__(self, deepspeed_config: dict[str, object]) -> None:
        self._deepspeed_config = deepspeed_config

    @contextmanager
    def loading(self) -> Iterator[None]:
        # transformers keeps only a weak reference, so a variable must hold the object
        announced = HfDeepSpeedConfig(self._deepspeed_config)
        try:
            yield
        finally:
            unset_hf_deepspeed_config()
            del announced

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        return deepspeed.zero.GatheredParameters(list(parameters))
