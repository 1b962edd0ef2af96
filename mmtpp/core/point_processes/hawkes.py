"""A Hawkes process whose excitation decays as a sum of exponentials with fixed rates.

    lambda_k(t) = mu_k + sum over earlier events i and decays d of
                  alpha[k, type_i, d] beta_d exp(-beta_d (t - t_i))

An event of type j causes alpha[k, j, d] events of type k in expectation through decay d. With the
decays fixed, the likelihood is concave in mu and alpha, and each type k is a separate problem.

Many types: alpha has K * K * D entries. Above ``MAX_SOURCES`` types, only the most frequent types
have separate parameters for the excitation they cause. The remaining types share these parameters,
and each remaining type also excites itself. A type then has at most (MAX_SOURCES + 1) * D + 1
parameters.

The fit includes, for every type, half a pseudo-event that the background caused and one
pseudo-event that caused nothing, so that short training sets give finite forecasts.

Axes: E events of a sequence, N target events of a fit, C columns, K types, S sources, D decays,
G bins of the grid.

Sources: Ozaki 1979 for the likelihood; Cover 1984, "An algorithm for maximizing expected log
investment return", for the distance from the maximum. The PyPI package named `tick` (0.8.0.2)
cannot be used with Python 3.11: constructing its models fails.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalGrid
from mmtpp.core.past.decayed_sums import decayed_sums
from mmtpp.core.point_processes.history import History

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
DECAYS = (0.03, 0.2, 1.0, 5.0, 30.0)  # per mean training interval
MAX_EVENTS = 200_000  # maximum number of events in a fit, mostly whole sequences drawn at random
MAX_NUMBERS = 2e7  # maximum number of excitations in memory, events * sources * decays: 160 MB
MAX_SOURCES = 32
MAX_FIT_S = 120.0
GAP = 1e-4  # nats per event; a solution this close to the maximum is accepted
ITERATIONS = 2000  # maximum number of iterations in the fit of one type
BACKGROUND, CHILDLESS = 0.5, 1.0  # pseudo-events


@dataclass(frozen=True, slots=True)
class Hawkes:
    """A multivariate Hawkes process, fitted by maximum likelihood.

    Attributes:
        beta: (D,) rates of the decays, per source unit.
        mu: (K,) rates of the background, per source unit.
        alpha: (K, K, D) expected number of events of type k that an event of type j causes.
        gap: Upper bound of the distance between the likelihood and its maximum, in nats per event;
            both include the pseudo-events.
    """

    beta: FloatArray
    mu: FloatArray
    alpha: FloatArray
    gap: float = 0.0

    @classmethod
    def fit(
        cls,
        train: Sequence[History],
        num_types: int,
        decays: Sequence[float] = DECAYS,
        *,
        max_seconds: float = MAX_FIT_S,
        report: Callable[[int], None] = lambda count: None,
    ) -> "Hawkes":
        """Fit a process to training sequences.

        Args:
            train: Training sequences, at least one of them with two events at different times.
            num_types: Number of types, K.
            decays: Rates of the exponentials, per mean training interval; none for a homogeneous
                Poisson process.
            max_seconds: Time after which the fit stops, with a warning that says how far the
                likelihood can be from its maximum.
            report: Called with the number of types fitted so far.
        """
        # the first event of a sequence is given
        types = np.concatenate([history.types[1:] for history in train])
        duration = sum(float(history.times[-1] - history.times[0]) for history in train)
        mean = duration / len(types)
        beta: FloatArray = np.asarray(decays, dtype=np.float64) / mean
        if not len(decays):
            mu = np.maximum(np.bincount(types, minlength=num_types), 0.5) / duration
            return cls(beta, mu, np.zeros((num_types, num_types, 0)))
        sources = _Sources.from_types(types, num_types)
        max_events = min(MAX_EVENTS, MAX_NUMBERS / len(decays) / sources.count)
        events = _Events.from_histories(choose_sequences(train, max_events), mean)
        mu, alpha, gap = _fit_types(events, sources, np.asarray(decays), max_seconds, report)
        return cls(beta, mu / mean, alpha, gap)

    def forecast_intervals(
        self, history: History, grid: IntervalGrid
    ) -> Iterator[IntervalForecasts]:
        """Forecast the intervals of all events but the first, in chunks."""
        causes = self.alpha.sum(axis=0)[history.types]  # (E, D)
        raised = np.stack(
            [
                decayed_sums(decay_factors(history.times, beta)[:, None], causes[:, [index]])[
                    0, 0, :-1
                ]
                for index, beta in enumerate(self.beta.tolist())
            ]
            or [np.zeros(len(history.times) - 1)]
        )
        fallen = -np.expm1(-np.outer(self.beta, grid.edges)) if len(self.beta) else 0 * grid.edges
        for rows in history.chunks():
            # the compensator of all types from the previous event to each edge
            compensator = self.mu.sum() * grid.edges + raised[:, rows].T @ np.atleast_2d(fallen)
            survival = np.exp(-compensator)
            mass = survival[:, :-1] * -np.expm1(-np.diff(compensator, axis=1))
            mass[:, -1] += survival[:, -1]  # the probability beyond the grid
            zeros = np.zeros(len(mass))
            yield IntervalForecasts(grid, zeros, mass, zeros, is_smooth=True)

    def forecast_types(self, history: History) -> FloatArray:
        """(E - 1, K) log-probabilities of the types at the events' times."""
        rates = np.tile(self.mu, (len(history.times) - 1, 1))
        for index, beta in enumerate(self.beta.tolist()):
            factors = decay_factors(history.times, beta)
            after = decayed_sums(factors[:, None], self.alpha[:, history.types, index].T)[0].T
            rates += beta * factors[1:, None] * after[:-1]
        return np.log(rates / rates.sum(axis=1, keepdims=True))


def _fit_types(
    events: "_Events",
    sources: "_Sources",
    decays: FloatArray,
    max_seconds: float,
    report: Callable[[int], None],
) -> tuple[FloatArray, FloatArray, float]:
    """Fit the parameters type by type.

    Rare types come first, so that the time they do not need is left to the frequent types.

    Returns:
        ``Hawkes.mu`` per mean training interval, ``Hawkes.alpha`` and ``Hawkes.gap``.
    """
    started = time.monotonic()
    num_types = len(sources.of_type)
    mu, alpha = np.zeros(num_types), np.zeros((num_types, num_types, len(decays)))
    features = events.features(np.eye(sources.count)[sources.of_type[events.types]], decays)
    exposure = events.exposure(sources.of_type[events.types], sources.count, decays)
    counts = np.bincount(events.types[events.is_target], minlength=num_types)
    gaps = np.zeros(num_types)
    for num_fitted, event_type in enumerate(np.argsort(counts).tolist()):
        has_type = events.types[events.is_target] == event_type
        columns, exposed = features[has_type], exposure
        if sources.is_shared[event_type]:
            of_type = (events.types == event_type).astype(np.float64)
            columns = np.hstack([columns, events.features(of_type[:, None], decays)[has_type]])
            by_kind = events.exposure(np.where(of_type, 0, 1), 2, decays)
            exposed = np.append(exposure, by_kind.reshape(len(decays), 2)[:, 0])
        now = time.monotonic()
        parameters, gaps[event_type] = _maximise(
            columns,
            np.append(events.duration, exposed + CHILDLESS),
            now + (started + max_seconds - now) / (num_types - num_fitted),
        )
        mu[event_type] = parameters[0]
        alpha[event_type] = sources.alpha(event_type, parameters[1:], len(decays))
        report(num_fitted + 1)
    gap = float((gaps * (counts + BACKGROUND)).sum() / max(1, counts.sum()))
    if gap > 2 * GAP:
        logger.warning(
            "the fit of the Hawkes process was stopped after %.0f s: its likelihood is up to "
            "%.2g nats per event below the maximum",
            time.monotonic() - started,
            gap,
        )
    return mu, alpha, gap


def decay_factors(times: FloatArray, beta: float) -> FloatArray:
    """(E,) decay from the previous event to each event of one sequence; 0 for the first event."""
    return np.append(0.0, np.exp(-beta * np.diff(times)))


def choose_sequences(histories: Sequence[History], max_events: float) -> list[History]:
    """Choose sequences at random with at most ``max_events`` events in total; the seed is fixed.

    A single sequence that is longer is truncated to its newest events.
    """
    order: list[int] = np.random.default_rng(0).permutation(len(histories)).tolist()
    sizes = np.cumsum([len(histories[index].times) for index in order])
    chosen = order[: max(1, int(np.searchsorted(sizes, max_events, side="right")))]
    if sizes[-1] > max_events:
        logger.info(
            "the Hawkes process is fitted on at most %.0f of %d events, %d of %d sequences",
            max_events,
            sizes[-1],
            len(chosen),
            len(order),
        )
    newest = slice(-int(max_events), None)
    return [
        replace(
            histories[index],
            times=histories[index].times[newest],
            types=histories[index].types[newest],
        )
        for index in sorted(chosen)
    ]


@dataclass(frozen=True, slots=True)
class _Sources:
    """Groups of types whose excitation has the same parameters.

    Attributes:
        of_type: (K,) source of each type.
        count: Number of sources, S.
        is_shared: (K,) whether the type shares its source, and also excites itself.
    """

    of_type: IntArray
    count: int
    is_shared: NDArray[np.bool_]

    @classmethod
    def from_types(cls, types: IntArray, num_types: int) -> "_Sources":
        """Build one source for each of the most frequent types, and one for the remaining types.

        Args:
            types: Types of all training events.
            num_types: Number of types, K.
        """
        if num_types <= MAX_SOURCES:
            return cls(np.arange(num_types), num_types, np.zeros(num_types, np.bool_))
        order = np.argsort(-np.bincount(types, minlength=num_types), kind="stable")
        of_type = np.full(num_types, MAX_SOURCES - 1)
        of_type[order[: MAX_SOURCES - 1]] = np.arange(MAX_SOURCES - 1)
        return cls(of_type, MAX_SOURCES, of_type == MAX_SOURCES - 1)

    def alpha(self, event_type: int, parameters: FloatArray, num_decays: int) -> FloatArray:
        """(K, D) expected events of one type that an event of each type causes.

        Args:
            event_type: Index of the caused type.
            parameters: Fitted parameters of this type, without the background.
            num_decays: Number of decays, D.
        """
        shared = parameters[: num_decays * self.count].reshape(num_decays, self.count)
        alpha = shared.T[self.of_type]
        if self.is_shared[event_type]:
            alpha[event_type] += parameters[num_decays * self.count :]
        return alpha


@dataclass(frozen=True, slots=True)
class _Events:
    """The events of all sequences, one sequence after the other, in mean training intervals.

    Attributes:
        times: (E,) times since the start of the sequence.
        types: (E,) indices of the types.
        is_target: (E,) whether an event is a target: all N events but the first of each sequence.
        left: (E,) time until the last event of the sequence.
        duration: Sum of the sequences' durations.
    """

    times: FloatArray
    types: IntArray
    is_target: NDArray[np.bool_]
    left: FloatArray
    duration: float

    @classmethod
    def from_histories(cls, histories: Sequence[History], unit: float) -> "_Events":
        """Concatenate the events of sequences; times are divided by ``unit``."""
        times = [(history.times - history.times[0]) / unit for history in histories]
        return cls(
            np.concatenate(times),
            np.concatenate([history.types for history in histories]),
            np.concatenate([np.arange(len(part)) > 0 for part in times]),
            np.concatenate([part[-1] - part for part in times]),
            float(sum(part[-1] for part in times)),
        )

    def features(self, inputs: FloatArray, decays: FloatArray) -> FloatArray:
        """(N, D * C) excitation of each target event by the earlier events of its sequence.

        Args:
            inputs: (E, C) contribution of each event to each column.
            decays: (D,) rates of the decays.
        """
        targets = np.flatnonzero(self.is_target)
        features = np.empty((len(targets), len(decays), inputs.shape[1]))
        waits = np.diff(self.times, prepend=0.0)
        for index, beta in enumerate(decays.tolist()):
            factors = np.where(
                self.is_target, np.exp(-beta * np.where(self.is_target, waits, 0)), 0
            )
            after = decayed_sums(factors[:, None], inputs)[0].T
            features[:, index] = beta * factors[targets, None] * after[targets - 1]
        return features.reshape(len(targets), -1)

    def exposure(self, columns: IntArray, count: int, decays: FloatArray) -> FloatArray:
        """(D * C,) integral of the excitation of each column up to the ends of the sequences.

        Args:
            columns: (E,) column that each event contributes to.
            count: Number of columns, C.
            decays: (D,) rates of the decays.
        """
        raised = [np.bincount(columns, -np.expm1(-beta * self.left), count) for beta in decays]
        return np.concatenate(raised).astype(np.float64)


def _maximise(
    columns: FloatArray, exposure: FloatArray, deadline: float
) -> tuple[FloatArray, float]:
    """Maximise the likelihood of one type over parameters of at least 0.

    The logarithm of the likelihood is the sum over events of log(p[0] + columns @ p[1:]), with
    ``BACKGROUND`` times log(p[0]), minus exposure @ p.

    Args:
        columns: (N, P - 1) excitation of each event.
        exposure: (P,) integral of the excitation of each parameter, above 0.
        deadline: Time of ``time.monotonic`` at which the search stops.

    Returns:
        The (P,) parameters, and an upper bound of the distance to the maximum in nats per event.
    """
    total = len(columns) + BACKGROUND
    # with shares of the events as parameters the maximum lies on the simplex
    scale = total / exposure
    best: tuple[float, FloatArray, float] = (np.inf, scale / len(scale), np.inf)

    def loss(shares: FloatArray) -> tuple[float, FloatArray]:
        """Loss per event and its gradient; keeps the best solution and its distance."""
        nonlocal best
        parameters = shares * scale
        rates = parameters[0] + columns @ parameters[1:]
        value = -np.log(rates).sum() - BACKGROUND * np.log(parameters[0])
        weights = 1 / rates
        background = weights.sum() + BACKGROUND / parameters[0]
        raised = np.append(background, weights @ columns) / exposure
        size = shares.sum()
        if (result := float(value / total + size)) < best[0]:
            # Cover's bound, after the shares are scaled to their best sum, which is 1
            best = (result, parameters / size, float(np.log(raised.max() * size)))
        return result, 1 - raised

    def stop(_: object) -> None:
        if best[2] < GAP or time.monotonic() > deadline:
            raise StopIteration

    optimize.minimize(  # pyright: ignore[reportUnknownMemberType]
        loss,
        np.full(len(scale), 1 / len(scale)),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        bounds=[(1e-12, None)] + [(0, None)] * (len(scale) - 1),
        options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 0, "gtol": 0},
    )
    return best[1], best[2]
