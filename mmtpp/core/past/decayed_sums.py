"""Sums over the past that decay from event to event, for all events at once.

Axes: E events, S decays, V summed values, N blocks, B events of a block.
"""

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


def decayed_sums(
    decays_ES: FloatArray, values_EV: FloatArray, initial_SV: FloatArray | None = None
) -> FloatArray:
    """Sum values over the past: ``sum[e] = decay[e] * sum[e - 1] + value[e]``.

    The recurrence runs over blocks of consecutive events in parallel: first for the sums of each
    block alone, then again from the true sums before each block. The work is linear in the number
    of events; the number of Python steps is about three times its square root. A decay of 0 forgets
    the past, so sequences can follow each other: the first event of each has a decay of 0.

    Args:
        decays_ES: (E, S) factors from 0 to 1.
        values_EV: (E, V) values to sum.
        initial_SV: (S, V) sums before the first event; None for zeros.

    Returns:
        (S, V, E) sums with and after each event.
    """
    num_events, num_decays = decays_ES.shape
    if not decays_ES.size or not values_EV.size:
        return np.empty((num_decays, values_EV.shape[1], num_events), values_EV.dtype)
    size = math.isqrt(num_events)
    decays_BSN, values_BVN = _blocks(decays_ES, size), _blocks(values_EV, size)
    shape_SVN = (num_decays, values_EV.shape[1], decays_BSN.shape[2])

    alone_SVN = np.zeros(shape_SVN, values_EV.dtype)
    for decays_SN, values_VN in zip(decays_BSN, values_BVN, strict=True):
        alone_SVN *= decays_SN[:, None]
        alone_SVN += values_VN

    total_SN = np.prod(decays_BSN, axis=0)
    state_SVN = np.empty(shape_SVN, values_EV.dtype)
    before_SV = np.zeros(shape_SVN[:2], values_EV.dtype) if initial_SV is None else initial_SV
    for block in range(shape_SVN[2]):
        state_SVN[..., block] = before_SV
        before_SV = total_SN[:, block, None] * before_SV + alone_SVN[..., block]

    sums_SVNB = np.empty((*shape_SVN, size), values_EV.dtype)
    for place, (decays_SN, values_VN) in enumerate(zip(decays_BSN, values_BVN, strict=True)):
        state_SVN *= decays_SN[:, None]
        state_SVN += values_VN
        sums_SVNB[..., place] = state_SVN
    return sums_SVNB.reshape(*shape_SVN[:2], -1)[..., :num_events]


def _blocks(rows_EX: FloatArray, size: int) -> FloatArray:
    """(B, X, N) rows by their place in blocks of ``size`` events, the last one filled with zeros.

    The blocks are the last axis, because NumPy is fastest along a long last axis.
    """
    num_events, num_columns = rows_EX.shape
    missing = -num_events % size
    rows_NBX = np.pad(rows_EX, ((0, missing), (0, 0))).reshape(-1, size, num_columns)
    return np.ascontiguousarray(rows_NBX.transpose(1, 2, 0))
