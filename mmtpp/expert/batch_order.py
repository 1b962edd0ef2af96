"""The order of the training events of an expert: batches, in a new random order in every epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.point_processes.next_event_draws import NextEventDraws
from mmtpp.core.seeds import seed_from
from mmtpp.expert.hawkes_targets import HawkesTargets
from mmtpp.expert.next_events import EventBlocks, NextEvents

LEAST_BATCHES, LEAST_EVENTS = 8, 32
"""Least number of batches of an epoch, where a batch has about ``LEAST_EVENTS`` events or more: a
network needs hundreds of steps, whatever the number of events."""


@dataclass(frozen=True, slots=True)
class RankBatch:
    """The part of a batch that a rank computes.

    Attributes:
        events: The M events of the rank.
        places: (M,) their places in the batch.
        size: Number of events of the whole batch.
    """

    events: NextEvents
    places: NDArray[np.int64]
    size: int


class BatchOrder:
    """Batches of training events in a new random order in every epoch.

    Each epoch has every event once. Blocks follow each other in random order, and a batch has
    events of one block only, so the sizes of batches differ slightly.

    Args:
        blocks: Training events.
        events_per_step: Number of events of a batch, about. Few events have smaller batches, so
            that an epoch has ``LEAST_BATCHES`` of them.
        seed: Seed of the order.
        drawn: Draws a share of the targets anew in every epoch; None for the events that occurred.
    """

    def __init__(
        self,
        blocks: EventBlocks,
        *,
        events_per_step: int,
        seed: int,
        drawn: HawkesTargets | None = None,
    ) -> None:
        self._blocks, self._seed, self._drawn = blocks, seed, drawn
        self._num_events = [blocks.num_targets(block) for block in range(len(blocks.blocks))]
        of_few_events = max(LEAST_EVENTS, sum(self._num_events) // LEAST_BATCHES)
        size = min(events_per_step, of_few_events)
        self._num_batches = [max(1, round(n / size)) for n in self._num_events]
        self._loaded: tuple[int, NextEvents, NextEventDraws | None] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return sum(self._num_batches)

    @property
    def events_per_epoch(self) -> int:
        """Number of events of an epoch."""
        return sum(self._num_events)

    def batches(
        self, first: int, rank: int = 0, num_ranks: int = 1, *, num_steps: int | None = None
    ) -> Iterator[RankBatch]:
        """Batches without end; each rank gets its part of every batch.

        Args:
            first: Number of batches to skip.
            rank: Rank of this process.
            num_ranks: Number of ranks.
            num_steps: Number of batches of the training, over which the share of the drawn
                targets falls; needed only with drawn targets.

        Yields:
            The part of this rank of each batch.
        """
        epoch, skipped = divmod(first, self.steps_per_epoch)
        step = first
        while True:
            for block in self._rng(epoch).permutation(len(self._num_events)).tolist():
                num_batches = self._num_batches[block]
                if skipped >= num_batches:
                    skipped -= num_batches
                    continue
                events, draws = self._load(block)
                order = self._rng(epoch, block).permutation(self._num_events[block])
                for batch in np.array_split(order, num_batches)[skipped:]:
                    places = np.array_split(np.arange(len(batch)), num_ranks)[rank]
                    if draws is None:
                        chosen = events.take(batch[places])
                    else:
                        assert num_steps is not None
                        rng = self._rng(epoch, block, step)
                        drawn = self._draw(events, batch, draws, progress=step / num_steps, rng=rng)
                        chosen = drawn.take(places)
                    yield RankBatch(chosen, places, len(batch))
                    step += 1
                skipped = 0
            epoch += 1

    def _rng(self, *parts: int) -> np.random.Generator:
        return np.random.default_rng(seed_from("expert", self._seed, *parts))

    def _draw(
        self,
        events: NextEvents,
        batch: NDArray[np.int64],
        draws: NextEventDraws,
        *,
        progress: float,
        rng: np.random.Generator,
    ) -> NextEvents:
        """The events of a whole batch, with a share of the targets drawn.

        The draws are those of the whole batch, so that they do not depend on the ranks.

        Args:
            events: Events of the block.
            batch: Places of the events of the batch in the block.
            draws: The process after the events of the block.
            progress: Part of the training before this batch, 0 to 1.
            rng: Source of the draws.
        """
        assert self._drawn is not None
        share = self._drawn.share(progress)
        return self._drawn.replace(events.take(batch), batch, draws, share, rng)

    def _load(self, block: int) -> tuple[NextEvents, NextEventDraws | None]:
        if self._loaded is None or self._loaded[0] != block:
            self._loaded = None  # frees the block before
            draws = self._drawn.draws(block) if self._drawn is not None else None
            self._loaded = (block, self._blocks.load(block), draws)
        return self._loaded[1:]
