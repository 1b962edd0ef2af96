"""The events of a stored sequence that samples and statistics may use."""

from dataclasses import dataclass

from mmtpp.core.representation.window import TimeRange
from mmtpp.data.store.stored_sequence import StoredSequence


@dataclass(frozen=True, slots=True)
class EventSpan:
    """Consecutive events of a sequence: those of a split and their past, within a time range.

    Attributes:
        first: Position of the first event in the sequence.
        end: Position after the last event; ``first`` if no event may be used.
        first_target: Position of the first event that belongs to the split. Earlier events are its
            past. At or after ``end`` if no event belongs to the split.
    """

    first: int
    end: int
    first_target: int

    def __len__(self) -> int:
        return self.end - self.first

    @property
    def has_targets(self) -> bool:
        """Whether an event belongs to the split."""
        return self.first_target < self.end


def usable_events(sequence: StoredSequence, split: str, time_range: TimeRange) -> EventSpan:
    """Find the events of a sequence that a split may use.

    Events after the split stay unknown; events before it are its past.

    Args:
        sequence: The stored sequence.
        split: ``train``, ``validation``, ``test`` or ``all``.
        time_range: Range of the times that may be used.
    """
    first, time_end = time_range.event_range(sequence.times)
    split_start, split_end = sequence.span(split)
    end = max(first, min(time_end, split_end))
    return EventSpan(first, end, first_target=max(first, split_start))
