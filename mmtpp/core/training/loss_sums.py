"""Losses of labels, summed by modality."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.tokens import Modality

MODALITY_NAMES = {
    Modality.TIME: "time",
    Modality.TYPE: "type",
    Modality.TEXT: "text",
    Modality.CONTROL: "control",
}


@dataclass(frozen=True, slots=True)
class LossSums:
    """Negative log-likelihood and number of labels by modality; add objects to merge them.

    Attributes:
        nll: (5,) sum of the nats, indexed by ``Modality``.
        tokens: (5,) number of labels, indexed by ``Modality``.
    """

    nll: NDArray[np.float64]
    tokens: NDArray[np.float64]

    @classmethod
    def from_labels(cls, nll: NDArray[np.floating], modality: NDArray[np.integer]) -> "LossSums":
        """Sum over (N,) labels."""
        size = len(Modality)
        sums = np.bincount(modality, weights=nll, minlength=size)
        counts = np.bincount(modality, minlength=size)
        return cls(sums.astype(np.float64), counts.astype(np.float64))

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums(self.nll + other.nll, self.tokens + other.tokens)

    def per_token(self, prefix: str) -> dict[str, float]:
        """``{prefix}/loss_per_token`` over all labels and by modality, in nats."""
        whole, *by_modality = names_per_token(prefix)
        metrics = {whole: float(self.nll.sum() / self.tokens.sum())}
        for modality, name in zip(MODALITY_NAMES, by_modality, strict=True):
            if self.tokens[modality]:
                metrics[name] = float(self.nll[modality] / self.tokens[modality])
        return metrics


def names_per_token(prefix: str) -> tuple[str, ...]:
    """Names of the losses per token: over all labels, then by modality (``MODALITY_NAMES``)."""
    return (
        f"{prefix}/loss_per_token",
        *(f"{prefix}/{name}_loss_per_token" for name in MODALITY_NAMES.values()),
    )
