"""Classical point processes and trivial predictors, on the same events and by the same metrics.

    marginal   the training distribution of the intervals and of the types, without any history
    poisson    a homogeneous process for each type: exponential intervals
    last       the interval and the type of the event before
    hawkes     an exponential Hawkes process: every event raises the rate of every type, and the
               excitation decays

Axes: E events of a sequence, K types, G steps of the grid.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import optimize

from mmtpp.core.clock import on_ticks
from mmtpp.core.forecast import IntervalForecasts, IntervalGrid, IntervalRange
from mmtpp.evaluate.targets import TARGET_SCHEMA, time_columns, type_columns

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]
FINE = 64  # steps of the grid reach down to this part of a tick
CHUNK = 1000  # events forecast at once; each has a number for every step of the grid
MAX_HAWKES_EVENTS = 200_000  # it is fitted on so many, of whole sequences drawn by chance
DECAYS = np.geomspace(0.03, 30, 13)  # of the Hawkes process, per mean interval


@dataclass(frozen=True, slots=True)
class History:
    """The times and types of one sequence.

    Attributes:
        sequence_id: its name.
        times: (E,) in the source's unit.
        types: (E,) index into the types that occur.
        tick: tick of the clock, in the source's unit; 0 where the times have none.
    """

    sequence_id: str
    times: FloatArray
    types: NDArray[np.int64]
    tick: float = 0.0

    @property
    def intervals(self) -> FloatArray:
        """(E - 1,) of all events but the first, without the rounding of their times."""
        return on_ticks(np.diff(self.times), self.tick)


class Marginal:
    """Intervals by their training histogram, types by their frequencies.

    Args:
        train: training sequences.
        grid: of the forecasts.
        num_types: K.
    """

    def __init__(self, train: Sequence[History], grid: IntervalGrid, num_types: int) -> None:
        intervals = np.concatenate([each.intervals for each in train])
        zero = float((intervals == 0).sum())
        steps = grid.step_of_code(intervals[intervals > 0])
        counts = np.bincount(steps, minlength=len(grid.widths))
        total = counts.sum() + zero
        # a pseudo-event over all steps: an interval never seen has a finite cost
        share = np.diff(np.log(np.maximum(grid.edges, grid.edges[1] / 2)))
        mass = counts + share / share.sum()
        self._zero, self._mass = zero / (total + 1), mass / (total + 1)
        types = np.concatenate([each.types[1:] for each in train])
        frequencies = np.bincount(types, minlength=num_types) + 1 / num_types
        self._types = np.log(frequencies / frequencies.sum())

    def intervals(self, history: History, grid: IntervalGrid) -> Iterator[IntervalForecasts]:
        """Forecasts of all events but the first, in chunks."""
        for size in _chunks(history):
            yield IntervalForecasts(
                grid, np.full(size, self._zero), np.tile(self._mass, (size, 1)), np.zeros(size)
            )

    def types(self, history: History) -> FloatArray:
        """(E - 1, K) log-probabilities."""
        return np.tile(self._types, (len(history.times) - 1, 1))


class Hawkes:
    """lambda_k(t) = mu_k + sum over earlier events i of alpha[k, type_i] beta exp(-beta (t - t_i)).

    For a given decay beta the likelihood is concave in mu and alpha; the decay is the best of
    ``DECAYS``. Without ``alpha`` it is the homogeneous Poisson process.

    Args:
        train: training sequences.
        num_types: K.
        decays: tried, per mean interval; none for a Poisson process.

    Source: Ozaki 1979 for the recursion. PyPI's tick 0.8.0.2 cannot be used with Python 3.11: its
        models fail when they are made.
    """

    def __init__(self, train: Sequence[History], num_types: int, decays: Sequence[float]) -> None:
        self._num_types = num_types
        # the first event of a sequence is given
        types = np.concatenate([each.types[1:] for each in train])
        duration = sum(float(each.times[-1] - each.times[0]) for each in train)
        mean = duration / len(types)
        counts = np.maximum(np.bincount(types, minlength=num_types), 0.5)
        self.beta = 1.0 / mean
        self.mu: FloatArray = counts / duration
        self.alpha: FloatArray = np.zeros((num_types, num_types))
        # in units of the mean interval, where rates and excitations are of the same size
        scaled = [replace(each, times=each.times / mean, tick=each.tick / mean) for each in train]
        best = np.inf
        for decay in decays:
            loss, mu, alpha = self._fit(scaled, types, float(decay), counts / len(types))
            if loss < best:
                best, self.beta, self.mu, self.alpha = loss, float(decay) / mean, mu / mean, alpha

    def _fit(
        self,
        train: Sequence[History],
        types: NDArray[np.int64],
        beta: float,
        rates: FloatArray,
    ) -> tuple[float, FloatArray, FloatArray]:
        """The likelihood's maximum for one decay: minus its logarithm, mu and alpha.

        Raises:
            RuntimeError: the maximum was not found.
        """
        size, duration = self._num_types, float(len(types))
        excited = np.concatenate([self._excitation(each, beta)[0] for each in train])
        # what each type's events raise in all over what is left of their sequences
        raised = np.zeros(size)
        for each in train:
            left = 1 - np.exp(-beta * (each.times[-1] - each.times))
            raised += np.bincount(each.types, left, size)

        def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
            """Per event, with its gradient."""
            mu, alpha = parameters[:size], parameters[size:].reshape(size, size)
            rate = mu[types] + beta * (alpha[types] * excited).sum(axis=1)
            value = -np.log(rate).sum() + mu.sum() * duration + (alpha @ raised).sum()
            weight = -1 / rate
            d_mu = np.bincount(types, weight, size) + duration
            d_alpha = np.stack(
                [np.bincount(types, weight * beta * column, size) for column in excited.T], axis=1
            )
            gradient = np.concatenate([d_mu, (d_alpha + raised).ravel()])
            return float(value) / duration, gradient.astype(np.float64) / duration

        start = np.concatenate([0.5 * rates, np.full(size * size, 0.5 / size)])
        found = optimize.minimize(
            loss, start, jac=True, method="L-BFGS-B",
            bounds=[(1e-9, None)] * size + [(0, None)] * size**2,
            options={"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-8},  # nats an event
        )  # fmt: skip
        if not found.success:
            raise RuntimeError(f"the Hawkes process is not fitted, decay {beta:g}: {found.message}")
        return float(found.fun), found.x[:size], found.x[size:].reshape(size, size)

    def _excitation(self, history: History, beta: float) -> tuple[FloatArray, FloatArray]:
        """(E - 1, K) sums of exp(-beta t) over the earlier events of each type, at each event but
        the first, and the same just after the event before it."""
        decay = np.exp(-beta * history.intervals)
        after = np.zeros((len(decay), self._num_types))
        state = np.zeros(self._num_types)
        for index, kind in enumerate(history.types[:-1].tolist()):
            if index:
                state = state * decay[index - 1]
            state[kind] += 1
            after[index] = state
        return after * decay[:, None], after

    def intervals(self, history: History, grid: IntervalGrid) -> Iterator[IntervalForecasts]:
        """Forecasts of all events but the first, in chunks."""
        edges = grid.edges
        _, after = self._excitation(history, self.beta)
        raised = after @ self.alpha.sum(axis=0)
        start = 0
        for size in _chunks(history):
            # the compensator of all types from the event before to each edge
            compensator = self.mu.sum() * edges + raised[start : start + size, None] * (
                1 - np.exp(-self.beta * edges)
            )
            survival = np.exp(-compensator)
            mass = survival[:, :-1] * -np.expm1(-np.diff(compensator, axis=1))
            mass[:, -1] += survival[:, -1]  # what lies beyond the grid
            zeros = np.zeros(size)
            yield IntervalForecasts(grid, zeros, mass, zeros, is_smooth=True)
            start += size

    def types(self, history: History) -> FloatArray:
        """(E - 1, K) log-probabilities of the types at the events' times."""
        at, _ = self._excitation(history, self.beta)
        rates = self.mu + self.beta * at @ self.alpha.T
        return np.log(rates / rates.sum(axis=1, keepdims=True))


def _chunks(history: History) -> Iterator[int]:
    left = len(history.times) - 1
    while left > 0:
        yield min(CHUNK, left)
        left -= CHUNK


def baseline_targets(
    train: Sequence[History],
    test: Sequence[History],
    targets: pa.Table,
    *,
    tick: float,
    num_types: int,
) -> dict[str, pa.Table]:
    """What the baselines forecast for the targets of a model.

    Args:
        train: training sequences of two events or more; at least one.
        test: the sequences of the targets.
        targets: ``targets.TARGET_SCHEMA``; its forecasts do not matter.
        tick: tick of the clock, in the source's time unit; 0 where the times have none.
        num_types: types that occur, K; ``History.types`` are indices of them.

    Returns:
        ``TARGET_SCHEMA`` by baseline, the rows sorted by sequence and position.
    """
    every = np.concatenate([each.intervals for each in (*train, *test)])
    # so wide that no target is off it: what lies there is the baselines' own affair
    positive = every[every > 0]
    # the steps of a process in continuous time are fine within the first half tick, too
    smallest = min(positive.min(), tick / FINE) if tick else positive.min()
    grid = IntervalRange(smallest, positive.max(), tick).grid(num_bytes=2)
    few = _some(train, MAX_HAWKES_EVENTS)
    models = {
        "marginal": Marginal(train, grid, num_types),
        "poisson": Hawkes(train, num_types, []),
        "hawkes": Hawkes(few, num_types, DECAYS.tolist()),
    }
    median = float(np.median(np.concatenate([each.intervals for each in train])))
    wanted = targets.select(["sequence_id", "position"])
    tables: dict[str, list[pa.Table]] = {name: [] for name in (*models, "last")}
    names = set(wanted["sequence_id"].to_pylist())
    for history in (each for each in test if each.sequence_id in names):
        shared = _shared_columns(history)
        tables["last"].append(_table(shared | _last(history, median)))
        for name, model in models.items():
            start, columns = 0, dict[str, NDArray]()
            parts: list[dict[str, NDArray]] = []
            for forecasts in model.intervals(history, grid):
                true = history.intervals[start : start + len(forecasts)]
                parts.append(time_columns(forecasts, true, tick=tick))
                start += len(forecasts)
            columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            chances = model.types(history)
            # a Hawkes process says the type at the event's time: it knows the time
            prefixes = ("joint_",) if name == "hawkes" else ("", "joint_")
            for prefix in prefixes:
                columns |= type_columns(prefix, chances, history.types[1:], np.arange(num_types))
            tables[name].append(_table(shared | columns))
    return {
        name: pa.concat_tables(parts)
        .join(wanted, keys=["sequence_id", "position"], join_type="inner")
        .sort_by([("sequence_id", "ascending"), ("position", "ascending")])
        for name, parts in tables.items()
    }


def _some(histories: Sequence[History], max_events: int) -> list[History]:
    """All of them, or a seeded choice that has about as many events."""
    order = np.random.default_rng(0).permutation(len(histories))
    sizes = np.cumsum([len(histories[index].times) for index in order])
    chosen = order[: max(1, int(np.searchsorted(sizes, max_events, side="right")))]
    if len(chosen) < len(histories):
        logger.info("the Hawkes process is fitted on %d of %d sequences", len(chosen), len(order))
    return [histories[index] for index in sorted(chosen.tolist())]


def _shared_columns(history: History) -> dict[str, object]:
    size = len(history.times) - 1
    return {
        "sequence_id": [history.sequence_id] * size,
        "position": np.arange(1, size + 1),
        "time": history.times[1:],
        "interval": history.intervals,
        "type": history.types[1:],
    }


def _last(history: History, median: float) -> dict[str, NDArray]:
    """The event before, as a forecast: a point, whose CRPS is its absolute error. The first event
    that is forecast has no interval before it; the training median takes its place."""
    before = np.append(median, history.intervals[:-1])
    point = dict.fromkeys(("mean", "greedy", "quantile_50"), before)
    error = np.abs(before - history.intervals)
    return {**point, "crps": error, "predicted_type": history.types[:-1]}


def _table(columns: dict[str, object]) -> pa.Table:
    size = len(columns["sequence_id"])  # pyright: ignore[reportArgumentType]
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(size, field.type)
            for field in TARGET_SCHEMA
        },
        schema=TARGET_SCHEMA,
    )
