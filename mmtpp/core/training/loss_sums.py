"""Losses of labels, summed by modality and with their weights."""

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
        num_labels: (5,) number of labels, indexed by ``Modality``.
        weighted_nll: Sum of the nats times the weights of the labels, which a training minimises; 0
            without weights.
        weight: Sum of the weights; 0 without weights.
    """

    nll: NDArray[np.float64]
    num_labels: NDArray[np.float64]
    weighted_nll: float = 0.0
    weight: float = 0.0

    @classmethod
    def from_labels(
        cls,
        nll: NDArray[np.floating],
        modality: NDArray[np.integer],
        weights: NDArray[np.floating] | None = None,
    ) -> "LossSums":
        """Sum over (N,) labels, with their (N,) weights in the loss; None without weights."""
        size = len(Modality)
        sums = np.bincount(modality, weights=nll, minlength=size)
        counts = np.bincount(modality, minlength=size)
        losses = cls(sums.astype(np.float64), counts.astype(np.float64))
        if weights is None:
            return losses
        return cls(losses.nll, losses.num_labels, float(nll @ weights), float(weights.sum()))

    @classmethod
    def from_array(cls, sums: NDArray[np.floating]) -> "LossSums":
        """The sums that ``as_array`` returned, perhaps added up over ranks."""
        nll, num_labels = np.split(np.asarray(sums[:-2], dtype=np.float64), 2)
        return cls(nll, num_labels, float(sums[-2]), float(sums[-1]))

    def as_array(self) -> NDArray[np.float64]:
        """(12,) all sums."""
        return np.concatenate([self.nll, self.num_labels, [self.weighted_nll, self.weight]])

    def __add__(self, other: "LossSums") -> "LossSums":
        return LossSums.from_array(self.as_array() + other.as_array())

    def per_token(self, prefix: str) -> dict[str, float]:
        """Losses in nats: over all labels, by modality, and with the weights of the labels.

        Args:
            prefix: First word of the metrics, as in ``{prefix}/loss_per_token``.
        """
        whole, *by_modality = names_per_token(prefix)
        metrics = {whole: float(self.nll.sum() / self.num_labels.sum())}
        for modality, name in zip(MODALITY_NAMES, by_modality, strict=True):
            if self.num_labels[modality]:
                metrics[name] = float(self.nll[modality] / self.num_labels[modality])
        if self.weight:
            metrics[name_weighted(prefix)] = self.weighted_nll / self.weight
        return metrics


def names_per_token(prefix: str) -> tuple[str, ...]:
    """Names of the losses per token: over all labels, then by modality (``MODALITY_NAMES``)."""
    return (
        f"{prefix}/loss_per_token",
        *(f"{prefix}/{name}_loss_per_token" for name in MODALITY_NAMES.values()),
    )


def name_weighted(prefix: str) -> str:
    """Name of the mean loss with the weights of the labels, which a training minimises."""
    return f"{prefix}/weighted_loss_per_token"
