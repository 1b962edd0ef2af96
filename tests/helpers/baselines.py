"""Forecasts of the baselines in one process, for tests."""

from collections.abc import Sequence

import pyarrow as pa

from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.baselines.classical import Baselines, interval_range_of, select_targets


def forecast_with_baselines(
    train: Sequence[History],
    test: Sequence[History],
    targets: pa.Table,
    *,
    tick: float,
    num_types: int,
) -> dict[str, pa.Table]:
    """Fit the baselines and forecast targets.

    Args:
        train: Training sequences of at least two events; at least one sequence.
        test: Sequences of the targets.
        targets: Table with the columns ``sequence_id`` and ``position``.
        tick: Tick of the clock, in the source's unit; 0 where the times have none.
        num_types: Number of types that occur, K; ``History.types`` are indices of them.

    Returns:
        ``targets.TARGET_SCHEMA`` by baseline, the rows sorted by sequence and position.
    """
    fitted = Baselines.fit(
        train, interval_range_of(test, tick=tick), tick=tick, num_types=num_types
    )
    names = set(targets["sequence_id"].to_pylist())
    forecasts = [fitted.forecast(history) for history in test if history.sequence_id in names]
    return select_targets(forecasts, targets)
