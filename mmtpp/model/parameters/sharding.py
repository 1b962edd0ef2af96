"""Sharding of a model's parameters while the model is built; ZeRO-3's is in ``train``."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import nn


class Sharding(Protocol):
    """Interface of a sharding strategy that the construction of a model needs."""

    def loading(self) -> AbstractContextManager[object]:
        """Context in which ``from_pretrained`` keeps only this process's part of each parameter."""
        ...

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """Context in which these parameters are whole and can be read."""
        ...


class Unsharded:
    """Every process has the whole model."""

    def loading(self) -> AbstractContextManager[object]:
        return nullcontext()

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        return nullcontext()
