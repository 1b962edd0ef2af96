"""Count the sequences and events of each split before ``prepare`` writes the store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmtpp.config.schema import SplitSection
from mmtpp.core.events import EventSequence
from mmtpp.core.split import (
    BY_TIME,
    SPLITS,
    TimeSplit,
    events_of_split,
    parse_instant,
    split_from_key,
)
from mmtpp.data.encode.raw_dataset import RawDataset


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Sizes of the splits.

    Attributes:
        by: How events are assigned to splits, ``split.by``.
        sequences: Number of sequences with an event in the split, by split.
        events: Number of events, by split.
        num_unknown: Number of sequences whose split is not given, with ``split.by = given``.
    """

    by: str
    sequences: Mapping[str, int]
    events: Mapping[str, int]
    num_unknown: int = 0


def count_splits(
    raw: RawDataset, split: SplitSection, split_key: Callable[[EventSequence], str] | None
) -> SplitCounts:
    """Assign sequences to splits as ``prepare`` does, and count them.

    Args:
        raw: Content of the event files.
        split: Settings of the splits.
        split_key: Key of a sequence that is hashed, see ``SourceReader``; None for its id.
    """
    rule = _time_split(split, raw.seconds_per_unit)
    sequences: dict[str, int] = dict.fromkeys(SPLITS, 0)
    events: dict[str, int] = dict.fromkeys(SPLITS, 0)
    num_unknown = 0
    for sequence, given in zip(raw.sequences, raw.given_splits, strict=True):
        name = {"given": given, "time": BY_TIME}.get(split.by)
        if name is None:
            name = split_from_key(
                split_key(sequence) if split_key else sequence.sequence_id,
                validation_fraction=split.validation_fraction,
                test_fraction=split.test_fraction,
            )
        num_unknown += not name
        cuts = rule.cuts(sequence.times)
        for wanted in SPLITS:
            start, end = events_of_split(name, wanted, sequence.times, cuts)
            sequences[wanted] += end > start
            events[wanted] += end - start
    return SplitCounts(split.by, sequences, events, num_unknown)


def _time_split(split: SplitSection, seconds_per_unit: float) -> TimeSplit:
    return TimeSplit(
        parse_instant(split.validation_from, seconds_per_unit=seconds_per_unit),
        parse_instant(split.test_from, seconds_per_unit=seconds_per_unit),
        split.validation_fraction,
        split.test_fraction,
    )
