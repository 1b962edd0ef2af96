"""Classical baselines on the cluster: fitted while the model scores, then evaluated in parallel."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.point_processes.history import History
from mmtpp.evaluate.baselines.classical import Baselines, interval_range_of, select_targets
from mmtpp.runtime.block_tasks import group_sequences
from mmtpp.runtime.machines import task_options
from mmtpp.runtime.progress import ProgressBar
from mmtpp.runtime.task_errors import own_errors

logger = logging.getLogger(__name__)

BLOCK_EVENTS = 5000  # about the number of events, in whole sequences, that one task forecasts
POLL_S = 1.0


class BaselineTasks:
    """Fits the baselines in a Ray task, and forecasts with them in further tasks.

    Each task uses one CPU and releases it at its end, so a model that waits for the CPU starts at
    most ``hawkes.MAX_FIT_S`` later.

    Args:
        test: Held-out sequences.
        tick: Tick of the clock, in the source's unit.
        num_types: Number of types that occur, K; ``History.types`` are indices of them.
        machine_labels: Ray labels of the machines that run the tasks.
    """

    def __init__(
        self,
        test: Sequence[History],
        *,
        tick: float,
        num_types: int,
        machine_labels: Mapping[str, str],
    ) -> None:
        self._test, self._tick, self._num_types = test, tick, num_types
        self._options = task_options(machine_labels)
        self._counter: Any = None
        self._fitted: Any = None

    def start_fit(self, train: Sequence[History]) -> None:
        """Start the fit and return immediately.

        Args:
            train: Training sequences of at least two events; without any there are no baselines.
        """
        if not train:
            logger.warning(
                "the store has no training sequence of two events or more: there are no baselines"
            )
            return
        # a new process in place of a dead one counts on
        self._counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(
            _Counter
        ).remote()
        task: Any = ray.remote(**self._options)(_fit)
        test_intervals = interval_range_of(self._test, tick=self._tick)
        self._fitted = task.remote(
            train, test_intervals, self._tick, self._num_types, self._counter
        )

    def forecast_targets(self, targets: pa.Table) -> dict[str, pa.Table]:
        """Wait for the fit and forecast the targets of a model.

        Args:
            targets: Table with the columns ``sequence_id`` and ``position``, at least one row.

        Returns:
            ``TARGET_SCHEMA`` by baseline, the rows sorted by sequence and position; empty if no fit
            was started.
        """
        if self._fitted is None:
            return {}
        names = set(targets["sequence_id"].to_pylist())
        wanted = [history for history in self._test if history.sequence_id in names]
        try:
            with own_errors():
                self._wait()
                return select_targets(list(self._forecasts(wanted)), targets)
        finally:
            ray.kill(self._counter)

    def _wait(self) -> None:
        """Show the progress of the fit until it ends."""
        progress = ProgressBar("evaluate: fit of baselines", total=self._num_types, unit="types")
        before = 0
        while not ray.wait([self._fitted], timeout=POLL_S)[0]:
            count: int = max(before, ray.get(self._counter.count.remote()))
            progress.advance(count - before)
            before = count
        progress.advance(self._num_types - before)
        progress.close()

    def _forecasts(self, histories: Sequence[History]) -> Iterator[dict[str, pa.Table]]:
        task: Any = ray.remote(**self._options)(_forecast)
        blocks = group_sequences(
            histories,
            [len(history.times) for history in histories],
            events_per_block=BLOCK_EVENTS,
        )
        tasks = [task.remote(self._fitted, block) for block in blocks]
        progress = ProgressBar("evaluate: baselines", total=len(tasks), unit="tasks")
        for task_result in tasks:
            yield ray.get(task_result)
            progress.advance(1)
        progress.close()


class _Counter:
    """Number of types whose Hawkes process is fitted; an actor."""

    def __init__(self) -> None:
        self._count = 0

    def set(self, count: int) -> None:
        self._count = count

    def count(self) -> int:
        return self._count


def _fit(
    train: Sequence[History],
    test: IntervalRange | None,
    tick: float,
    num_types: int,
    counter: Any,
) -> Baselines:
    return Baselines.fit(train, test, tick=tick, num_types=num_types, report=counter.set.remote)


def _forecast(fitted: Baselines, histories: Sequence[History]) -> dict[str, pa.Table]:
    forecasts = [fitted.forecast(history) for history in histories]
    return {name: pa.concat_tables([tables[name] for tables in forecasts]) for name in forecasts[0]}
