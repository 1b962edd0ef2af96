"""Long horizons: whole drawn futures against what happened.

The next event alone does not tell how good a forecast of the next hour is. From origins within
held-out sequences futures are drawn up to a horizon and compared as sets of events:

- OTD, the optimal transport distance (Mei et al. 2019): what it costs to turn a future into what
  happened, by moving events of the same type in time, deleting and inserting them.
- T-mAP (Karpukhin et al. 2024): the mean over types of the average precision of the forecast
  events, of which each may be matched to one event of the type within a tolerance. Events with
  equal scores share one threshold, so the order of the events changes nothing.

Axes: N predicted, M true events, K types, R resamples.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.interval_forecasts import IntervalGrid
from mmtpp.core.seeds import seed_from
from mmtpp.core.supervision import FutureOrigins
from mmtpp.data.samples.actors import iter_samples
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.settings import assemble_settings
from mmtpp.evaluate.baselines.history import History
from mmtpp.evaluate.metrics import CONFIDENCE, Estimate, mean_estimates
from mmtpp.model.loaded import LoadedModel, ModelSource
from mmtpp.model.record import Answers
from mmtpp.model.sampling import Roller
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import join, write_bytes

logger = logging.getLogger(__name__)

TOLERANCE = 0.2  # of the horizon, about as in HoTPP; deleting an event costs half of it
RESAMPLES = 200
T_MAP = "horizon/t_map"  # mean over the types that occur among the true events
T_MAP_ALL_TYPES = "horizon/t_map_all_types"  # mean over all K types, as HoTPP has it
FUTURE_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("origin", pa.int32()),  # position of the last event that is known
        ("future", pa.int32()),
        ("times", pa.list_(pa.float64())),  # after the origin, in the source's unit
        ("types", pa.list_(pa.int16())),
        ("type_chances", pa.list_(pa.float32())),  # K for every event
    ]
)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EventSet:
    """Events within the horizon.

    Attributes:
        times: (N,) after the origin.
        types: (N,) indices of the K types.
        chances: (N, K) probability of every type.
    """

    times: FloatArray
    types: NDArray[np.int64]
    chances: FloatArray

    @classmethod
    def certain(cls, times: FloatArray, types: NDArray[np.int64], num_types: int) -> "EventSet":
        """Events of which the type is taken for certain."""
        return cls(times, types, np.eye(num_types)[types])


def transport_distance(found: EventSet, true: EventSet, *, delete_cost: float) -> float:
    """OTD: the least cost, in units of time, of turning one set of events into the other.

    Args:
        found: a set of events.
        true: another one.
        delete_cost: Cost of deleting or inserting an event, in units of time.
    """
    total = delete_cost * (len(found.times) + len(true.times))
    for kind in np.intersect1d(found.types, true.types):
        here, there = (each.times[each.types == kind] for each in (found, true))
        gain = np.minimum(np.abs(here[:, None] - there) - 2 * delete_cost, 0)
        total += gain[linear_sum_assignment(gain)].sum()
    return float(total)


def matched(found: EventSet, true: EventSet, kind: int, *, tolerance: float) -> NDArray[np.bool_]:
    """(N,) the predicted events that are matched to an event of a type, each to one of its own.

    The matching has the largest sum of the scores' ranks. At any threshold of the score it has the
    most matches possible (the matchable sets are a transversal matroid), so the scores of the
    matched events do not depend on the order of the events.
    """
    is_matched = np.zeros(len(found.times), dtype=np.bool_)
    there = true.times[true.types == kind]
    if not len(there) or not len(found.times):
        return is_matched
    near = np.abs(found.times[:, None] - there) <= tolerance
    _, rank = np.unique(found.chances[:, kind], return_inverse=True)
    rows, columns = linear_sum_assignment(-(rank[:, None] + 1) * near)
    is_matched[rows] = near[rows, columns]
    return is_matched


@dataclass(frozen=True, slots=True)
class _OfType:
    """Predicted events in order of their score for a type, the highest first.

    Attributes:
        is_matched: (N,) bool.
        sequence: (N,) index of the sequence of each event.
        starts: (G,) places of the first event of each distinct score.
        num_true: (S,) number of true events of the type by sequence.
    """

    is_matched: NDArray[np.bool_]
    sequence: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_true: FloatArray

    def average_precision(self, weights: FloatArray) -> float:
        """Average precision with (S,) weights of the sequences; NaN without any true event."""
        total = float(weights @ self.num_true)
        if not total:
            return float("nan")
        if not len(self.starts):
            return 0.0
        of_event = weights[self.sequence]
        events = np.add.reduceat(of_event, self.starts)
        hits = np.add.reduceat(of_event * self.is_matched, self.starts)
        precision = np.cumsum(hits) / np.maximum(np.cumsum(events), 1e-300)
        return float(precision @ hits) / total


def horizon_estimates(
    found: Sequence[EventSet],
    true: Sequence[EventSet],
    sequence: NDArray[np.int64],
    *,
    horizon: float,
    seconds_per_unit: float,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metrics of predicted futures, with bootstrap intervals over sequences.

    Args:
        found: predicted events.
        true: what happened instead, of the same origins.
        sequence: from 0, which one each origin lies in.
        horizon: in the source's unit.
        seconds_per_unit: of the source's time unit.
        seed: of the resampling.
    """
    tolerance = TOLERANCE * horizon
    pairs = list(zip(found, true, strict=True))
    ones = np.ones(len(pairs))
    cost = [transport_distance(*pair, delete_cost=tolerance / 2) for pair in pairs]
    counts = [abs(len(ours.times) - len(theirs.times)) for ours, theirs in pairs]
    values = {
        "horizon/otd_s": (np.array(cost) * seconds_per_unit, ones),
        "horizon/count_error": (np.array(counts, dtype=np.float64), ones),
        "horizon/true_events": (np.array([len(each.times) for each in true], np.float64), ones),
    }
    estimates = mean_estimates(values, sequence, seed)
    of_types = [
        _of_type(pairs, sequence, kind, tolerance=tolerance)
        for kind in range(found[0].chances.shape[1])
    ]
    size = int(sequence.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    weights = np.concatenate([np.ones((1, size)), drawn]).astype(np.float64)
    # one resample after the other: all of them times all events would not fit the memory
    precision = np.array([[each.average_precision(row) for row in weights] for each in of_types])
    occurring = (~np.isnan(precision)).sum(axis=0)
    if occurring[0]:
        kept = occurring > 0
        sums = np.nansum(precision, axis=0)[kept]
        tail = 100 * (1 - CONFIDENCE) / 2
        means = {T_MAP: sums / occurring[kept], T_MAP_ALL_TYPES: sums / len(of_types)}
        for name, mean in means.items():
            low, high = np.percentile(mean[1:], [tail, 100 - tail])
            estimates[name] = Estimate(float(mean[0]), float(low), float(high))
    return estimates


def _of_type(
    pairs: Sequence[tuple[EventSet, EventSet]],
    sequence: NDArray[np.int64],
    kind: int,
    *,
    tolerance: float,
) -> _OfType:
    hits = np.concatenate([matched(*pair, kind, tolerance=tolerance) for pair in pairs])
    scores = np.concatenate([ours.chances[:, kind] for ours, _ in pairs])
    owner = np.repeat(sequence, [len(ours.times) for ours, _ in pairs])
    num_true = np.bincount(sequence, [(theirs.types == kind).sum() for _, theirs in pairs])
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan))
    return _OfType(hits[order], owner[order], starts, num_true.astype(np.float64))


def repeated(history: History, origin: int, *, horizon: float, num_types: int) -> EventSet:
    """A baseline: what happened in as long a time before the origin happens once more."""
    times = history.times[: origin + 1] - history.times[origin] + horizon
    kept = times > 0
    return EventSet.certain(times[kept], history.types[: origin + 1][kept], num_types)


def what_happened(history: History, origin: int, *, horizon: float, num_types: int) -> EventSet:
    """The events after an origin, up to the horizon."""
    times = history.times[origin + 1 :] - history.times[origin]
    kept = times <= horizon
    return EventSet.certain(times[kept], history.types[origin + 1 :][kept], num_types)


class FutureDrawer:
    """Assembles histories and draws what may follow: a Ray Data actor.

    Args:
        settings: what the plan was made with.
        source: of the model.
        type_codes: types that occur.
        grid: of the intervals.
        joint: the model knows the type when the time is known.
        futures: drawn from each origin.
        horizon: in the source's unit.
        max_events: of a future.
        seed: of the draws, with the origin.
    """

    def __init__(
        self,
        settings: AssembleSettings,
        source: ModelSource,
        type_codes: list[int],
        grid: IntervalGrid,
        joint: bool,
        futures: int,
        horizon: float,
        max_events: int,
        seed: int,
    ) -> None:
        self._loaded = loaded = LoadedModel.of(source, image_px=settings.image_px)
        self._assembler = Assembler(settings, loaded.token_ids)
        self._roller = Roller(
            loaded.model,
            settings.build_template(loaded.token_ids),
            type_codes,
            loaded.vocabulary.type_ids(type_codes),
            grid,
            joint=joint,
        )
        self._image_px = settings.image_px
        self._futures, self._horizon, self._max_events = futures, horizon, max_events
        self._seed = seed

    def __call__(self, samples: pa.Table) -> pa.Table:
        """The futures of origins, ``FUTURE_SCHEMA``."""
        assembled = self._assembler(samples)
        rows: list[dict[str, object]] = []
        for index in range(len(assembled)):
            name = assembled["sequences"][index].values[0].as_py()
            origin = int(assembled["event_position"][index].values[-1].as_py())
            row = row_from_arrow(assembled, index, image_px=self._image_px)
            plain = row.before_question(0, image_pad=self._loaded.token_ids.image_pad)
            found = self._roller(
                self._loaded.batcher(plain),
                num_futures=self._futures,
                horizon=self._horizon,
                max_events=self._max_events,
                rng=np.random.default_rng(seed_from("horizon", self._seed, name, origin)),
            )
            times = np.cumsum(found.intervals, axis=1)
            for future, kept in enumerate(found.is_within):
                rows.append(
                    {
                        "sequence_id": name,
                        "origin": origin,
                        "future": future,
                        "times": times[future][kept],
                        "types": found.types[future][kept],
                        "type_chances": found.type_chances[future][kept].ravel(),
                    }
                )
        return pa.Table.from_pylist(rows, FUTURE_SCHEMA)


def evaluate_horizon(
    config: RunConfig,
    source: ModelSource,
    answers: Answers,
    manifest: Manifest,
    vocabulary: Vocabulary,
    histories: Sequence[History],
    type_codes: list[int],
    run_uri: str,
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Draw futures from origins of the held-out split and compare them with what happened.

    Writes ``futures.parquet`` and ``horizon.json``.

    Args:
        config: of the job.
        source: of the model.
        answers: what the model was asked in training.
        manifest: of the store.
        vocabulary: of store and model.
        histories: the held-out sequences, whole; their types are indices of ``type_codes``.
        type_codes: types that occur.
        run_uri: where to write.

    Returns:
        Metrics of the model, every future counted alike, ``horizon/cut_futures`` the share that
        reached ``evaluation.max_future_events`` before the horizon; and of repeating the past.

    Raises:
        DataError: no sequence is longer than the horizon.
    """
    wanted = config.evaluation
    supervision = FutureOrigins(("time",), num_origins=wanted.origins, horizon=wanted.horizon)
    settings = assemble_settings(config, manifest, split=wanted.split, supervision=supervision)
    tables = iter_samples(
        config,
        make_plan(settings, vocabulary.token_ids()),
        FutureDrawer,
        (
            settings,
            source,
            type_codes,
            answers.intervals.grid(num_bytes=config.template.time_bytes),
            "joint" in answers.tasks,
            wanted.futures,
            wanted.horizon,
            wanted.max_future_events,
            config.training.seed,
        ),
        title="evaluate: futures",
    )
    order = [("sequence_id", "ascending"), ("origin", "ascending"), ("future", "ascending")]
    table = pa.concat_tables(list(tables)).sort_by(order)
    if not len(table):
        raise DataError(
            "no held-out sequence is longer than the horizon",
            where=config.store.uri,
            setting=f"evaluation.horizon = {wanted.horizon}",
        )
    write_table(join(run_uri, "futures.parquet"), table)
    cut = np.array([len(row) >= wanted.max_future_events for row in table["times"].to_pylist()])
    if cut.any():
        logger.warning(
            "%d of %d futures reached evaluation.max_future_events = %d before the horizon and end "
            "there; OTD, T-mAP and the count suffer: raise it",
            cut.sum(),
            len(cut),
            wanted.max_future_events,
        )
    short = len(histories) - len(set(table["sequence_id"].to_pylist()))
    if short and not wanted.max_sequences:
        logger.info("%d held-out sequences are shorter than the horizon: no futures", short)
    by_name = {each.sequence_id: each for each in histories}
    place_of = {code: place for place, code in enumerate(type_codes)}
    size = len(type_codes)
    found, true, past, sequence = [], [], [], []
    numbers: dict[str, int] = {}
    for row in table.to_pylist():
        history, origin = by_name[row["sequence_id"]], row["origin"]
        types = np.array([place_of[code] for code in row["types"]], dtype=np.int64)
        chances = np.array(row["type_chances"], dtype=np.float64).reshape(-1, size)
        found.append(EventSet(np.array(row["times"], dtype=np.float64), types, chances))
        shared = {"horizon": wanted.horizon, "num_types": size}
        true.append(what_happened(history, origin, **shared))
        past.append(repeated(history, origin, **shared))
        sequence.append(numbers.setdefault(row["sequence_id"], len(numbers)))
    results = [
        horizon_estimates(
            events,
            true,
            np.array(sequence),
            horizon=wanted.horizon,
            seconds_per_unit=manifest.seconds_per_unit,
            seed=config.training.seed,
        )
        for events in (found, past)
    ]
    share = {"horizon/cut_futures": (cut.astype(np.float64), np.ones(len(cut)))}
    results[0].update(mean_estimates(share, np.array(sequence), config.training.seed))
    tree = {
        name: {metric: asdict(each) for metric, each in estimates.items()}
        for name, estimates in zip(("model", "repeat"), results, strict=True)
    }
    write_bytes(join(run_uri, "horizon.json"), json.dumps(tree, indent=2).encode())
    return results[0], results[1]
