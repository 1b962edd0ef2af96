"""How a model's parameters are spread while it is built; ZeRO-3's way is in ``train``."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import nn


class Sharding(Protocol):
    """What building a model asks of a strategy that shards its parameters."""

    def loading(self) -> AbstractContextManager[object]:
        """Within it ``from_pretrained`` leaves this process its part of each parameter."""
        ...

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """Within it these parameters are whole, to be read."""
        ...


class Unsharded:
    """Every process has the whole model."""

    def loading(self) -> AbstractContextManager[object]:
        return nullcontext()

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        return nullcontext()
