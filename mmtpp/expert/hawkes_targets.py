"""Training targets drawn from a Hawkes process, in place of some of the events that occurred.

A network learns from few events what they have in common with a simpler process that has few
parameters: a Hawkes process is fitted to the training events, and in every step a share of the
next events is drawn from it, after their true past. The other next events are those that occurred.
The share falls during the training: where the process does not fit, the last steps have no draws.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmtpp.core.past.event_images import NO_IMAGE, EventImages
from mmtpp.core.point_processes.hawkes import Hawkes
from mmtpp.core.point_processes.history import History
from mmtpp.core.point_processes.next_event_draws import NextEventDraws
from mmtpp.expert.next_events import EventBlocks, NextEvents

DRAWING = 2 / 3
"""Part of the training in which the share of the drawn targets falls to 0. The averaged weights are
then those of steps without draws."""


@dataclass(frozen=True, slots=True)
class HawkesTargets:
    """Draws a share of the targets of training events.

    Attributes:
        process: Hawkes process, fitted to the training events.
        fraction: Probability that the target of an event is drawn in the first step, above 0 and
            at most 1.
        blocks: Training events.
    """

    process: Hawkes
    fraction: float
    blocks: EventBlocks

    @classmethod
    def fit(cls, blocks: EventBlocks, *, num_types: int, fraction: float) -> "HawkesTargets":
        """Fit the process to training events.

        Args:
            blocks: Training events; at least one interval is above zero.
            num_types: Number of types.
            fraction: As the attribute.
        """
        histories = [
            history
            for block in range(len(blocks.blocks))
            for history in _histories(blocks, block)
            if len(history.times) > 1
        ]
        # a limit of time would give the ranks different processes
        process = Hawkes.fit(histories, num_types, max_seconds=math.inf)
        return cls(process, fraction, blocks)

    def share(self, progress: float) -> float:
        """Probability that a target is drawn, after a part of the training, 0 to 1."""
        return self.fraction * max(0.0, 1 - progress / DRAWING)

    def draws(self, block: int) -> NextEventDraws:
        """The process after each event of a block that a scored event follows."""
        chosen = [np.flatnonzero(sequence.is_target) - 1 for sequence in self.blocks.blocks[block]]
        return NextEventDraws(self.process, _histories(self.blocks, block), chosen)

    def replace(
        self,
        events: NextEvents,
        index: NDArray[np.integer],
        draws: NextEventDraws,
        share: float,
        rng: np.random.Generator,
    ) -> NextEvents:
        """Replace a share of the targets.

        Args:
            events: M events of a block.
            index: (M,) their places in the block.
            draws: The process after the events of the block.
            share: Probability that a target is replaced.
            rng: Source of the draws, the same for the same batch.
        """
        tick = self.blocks.tick
        intervals, types = draws.draw(index, rng, tick=tick)
        is_drawn = rng.random(len(index)) < share
        if not tick:
            is_drawn &= intervals > 0  # the density at zero may be infinite
        keep = torch.from_numpy(~is_drawn)
        return replace(
            events,
            next_intervals=torch.where(
                keep, events.next_intervals, torch.from_numpy(intervals.astype(np.float32))
            ),
            next_types=torch.where(keep, events.next_types, torch.from_numpy(types)),
            next_images=_without(events.next_images, is_drawn),
        )


def _without(images: EventImages | None, chosen: NDArray[np.bool_]) -> EventImages | None:
    """Images of events, but none of the chosen events."""
    if images is None:
        return None
    return EventImages(images.pixels, np.where(chosen[:, None], NO_IMAGE, images.index))


def _histories(blocks: EventBlocks, block: int) -> list[History]:
    return [
        History(
            sequence.sequence_id,
            sequence.past.times,
            sequence.past.types.astype(np.int64),
            blocks.tick,
        )
        for sequence in blocks.blocks[block]
    ]
