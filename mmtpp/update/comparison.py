"""The comparison of an updated forecaster with the one before, on new events of the test split."""

import logging
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.evaluate.scores.estimates import few_sequences_warning
from mmtpp.evaluate.scores.paired_difference import Difference, paired_difference

logger = logging.getLogger(__name__)

LEAST_SEQUENCES = 5
"""An interval over fewer test sequences says nothing, so nothing is promoted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The updated forecaster and the one before, on new events of the test split.

    Attributes:
        difference: Nats per event of the updated forecaster minus those of the one before.
        before: Nats per event of the forecaster before.
        num_events: Number of events.
    """

    difference: Difference
    before: float
    num_events: int

    @property
    def is_better(self) -> bool:
        """Whether the whole 95 % interval of the difference is below zero."""
        return self.difference.num_sequences >= LEAST_SEQUENCES and self.difference.high < 0

    def as_metrics(self) -> dict[str, float]:
        """The comparison as metrics of MLflow, by name; values that are not finite are left out."""
        values = {
            "update/minus_before_nats_per_event": self.difference.value,
            "update/minus_before_low": self.difference.low,
            "update/minus_before_high": self.difference.high,
            "update/before_nats_per_event": self.before,
            "update/updated_nats_per_event": self.before + self.difference.value,
            "update/compared_events": float(self.num_events),
            "update/compared_sequences": float(self.difference.num_sequences),
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}


def compare_losses(before: pa.Table, after: pa.Table, *, seed: int) -> Comparison:
    """Compare the losses of two forecasters on the same events.

    Args:
        before: Sums by sequence, ``sequence_losses.LOSS_SCHEMA``, of the forecaster before; at
            least one sequence.
        after: Sums of the same sequences in the same order, of the updated forecaster.
        seed: Seed of the resamples.
    """
    num_events = before["events"].to_numpy()
    before_nll, after_nll = _joint_nll(before), _joint_nll(after)
    difference = paired_difference(after_nll, before_nll, num_events, seed=seed)
    if note := few_sequences_warning(len(num_events)):
        logger.warning("%s", note)
    total = int(num_events.sum())
    logger.info(
        "updated minus before on %d new test events: %+.4f nats per event, 95 %% interval "
        "[%+.4f, %+.4f]",
        total,
        difference.value,
        difference.low,
        difference.high,
    )
    return Comparison(difference, float(before_nll.sum()) / total, total)


def _joint_nll(losses: pa.Table) -> NDArray[np.float64]:
    return losses["time_nll"].to_numpy() + losses["type_nll"].to_numpy()
