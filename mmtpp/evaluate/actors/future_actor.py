"""Draw futures of held-out sequences: a Ray Data actor, on a GPU where there is one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.forecasting.futures import Futures
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.seeds import seed_from
from mmtpp.expert.gated_expert import GatedExpert, load_gated_expert
from mmtpp.expert.mixed_expert import MixedExpert
from mmtpp.expert.stored_past import StoredPast
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.inference.event_places import positioned_events
from mmtpp.inference.model_actor import ModelActor, ModelActorSettings
from mmtpp.model.decoding.sampling import FutureSampler

FUTURE_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("origin", pa.int32()),  # position of the last known event
        ("future", pa.int32()),
        ("times", pa.list_(pa.float64())),  # times after the origin, in the source's unit
        ("types", pa.list_(pa.int16())),
        ("type_probabilities", pa.list_(pa.float32())),  # K for each event
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureActorSettings(ModelActorSettings):
    """Settings of ``FutureActor``.

    Attributes:
        type_codes: Codes of the types that occur.
        grid: Grid of the intervals.
        joint: Whether the type is drawn given the time, or else from the history alone.
        num_futures: Number of futures of each origin.
        horizon: Length of a future, in the source's unit.
        max_events: Maximum number of events of a future.
        seed: Seed of the draws, combined with the origin.
    """

    type_codes: tuple[int, ...]
    grid: IntervalGrid
    joint: bool
    num_futures: int
    horizon: float
    max_events: int
    seed: int


class FutureActor(ModelActor):
    """Draws futures that may follow the histories of a plan.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: FutureActorSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._sample_futures = FutureSampler(
            self.loaded.model,
            settings.sample_settings.build_template(self.loaded.token_ids),
            settings.type_codes,
            self.loaded.vocabulary.type_ids(settings.type_codes),
            settings.grid,
            joint=settings.joint,
        )
        self._gated: GatedExpert | None = None
        if settings.location.expert_uri:
            self._gated = load_gated_expert(settings.location.expert_uri)
            self._past = StoredPast(
                self._gated.expert, self._gated.type_codes, settings.sample_settings.store
            )

    def process(self, sample: AssembledRow) -> pa.Table:
        """Draw the futures of one origin, ``FUTURE_SCHEMA``."""
        settings = self._settings
        name = sample.sequence_ids[0].as_py()
        origin = int(sample.event_values("position")[-1])
        futures = self._sample_futures(
            self.history_batch(sample.row, 0),
            num_futures=settings.num_futures,
            horizon=settings.horizon,
            max_events=settings.max_events,
            rng=np.random.default_rng(seed_from("horizon", settings.seed, name, origin)),
            mixed=self._mixed_expert(sample),
            last_time=float(sample.event_values("time")[-1]),
        )
        rows = future_rows(futures, None, name, origin)
        return pa.Table.from_pylist(rows, FUTURE_SCHEMA)

    def _mixed_expert(self, sample: AssembledRow) -> MixedExpert | None:
        """The expert of a mixture, after the last event of the sample."""
        if self._gated is None:
            return None
        settings = self._settings
        [origin] = positioned_events(sample, np.array([len(sample.row.event_type)]))
        past = self._past.past(origin)
        return MixedExpert(self._gated, past, settings.type_codes, settings.num_futures)


def future_rows(
    futures: Futures, type_codes: NDArray[np.integer] | None, sequence_id: str, origin: int
) -> list[dict[str, object]]:
    """The futures of one origin, rows of ``FUTURE_SCHEMA``.

    Args:
        futures: Sampled futures.
        type_codes: Code of each index in ``futures.types``; None where they are codes already.
        sequence_id: Name of the sequence.
        origin: Position of the last known event.
    """
    times = np.cumsum(futures.intervals, axis=1)
    codes = futures.types if type_codes is None else type_codes[futures.types]
    return [
        {
            "sequence_id": sequence_id,
            "origin": origin,
            "future": future,
            "times": times[future][is_within],
            "types": codes[future][is_within],
            "type_probabilities": futures.type_probabilities[future][is_within].ravel(),
        }
        for future, is_within in enumerate(futures.is_within)
    ]
