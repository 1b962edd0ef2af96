"""ZeRO-3 while a model is built: no rank ever holds all of its parameters."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import deepspeed
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config


class Zero3Sharding:
    """Parameters are split among the ranks as they are read.

    Rank 0 maps the files and broadcasts each parameter; the others never open them.

    Args:
        config: of DeepSpeed, stage 3; torch.distributed is initialised.
    """

    def __init__(self, config: dict[str, object]) -> None:
        self._config = config

    @contextmanager
    def loading(self) -> Iterator[None]:
        # transformers finds it through a weak reference, so it must have a name
        announced = HfDeepSpeedConfig(self._config)
        try:
            yield
        finally:
            unset_hf_deepspeed_config()
            del announced

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        return deepspeed.zero.GatheredParameters(list(parameters))
