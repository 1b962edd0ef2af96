"""Losses of a language model on forecast events, summed by sequence."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.forecasting.gate import IntervalLikelihoods
from mmtpp.update.sequence_losses import LOSS_SCHEMA


def target_losses(targets: pa.Table, *, tick: float) -> pa.Table:
    """Sums of the losses by sequence, ``sequence_losses.LOSS_SCHEMA``, in order of their ids.

    As for an expert, the loss of an interval is that of its density; without a clock, a
    simultaneous event has no density, and its loss is that of its probability.

    Args:
        targets: Forecasts of times and types, ``targets.TARGET_SCHEMA``.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
    """
    names, place = np.unique(targets["sequence_id"].to_numpy(), return_inverse=True)
    time_nll, simultaneous = _values(targets, "time_nll"), _values(targets, "simultaneous")
    likelihoods = IntervalLikelihoods(time_nll, simultaneous, tick)
    # a model without the task joint has one forecast of the type
    has_joint = targets["joint_type_nll"].null_count == 0
    type_nll = _values(targets, "joint_type_nll" if has_joint else "type_nll")
    sums = [
        np.bincount(place, values)
        for values in (np.ones(len(place)), -likelihoods.log_likelihoods(), type_nll)
    ]
    return pa.table([names, *sums], schema=LOSS_SCHEMA)


def _values(targets: pa.Table, name: str) -> NDArray[np.float64]:
    return targets[name].to_numpy().astype(np.float64)
