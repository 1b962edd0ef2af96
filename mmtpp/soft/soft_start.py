"""What a new soft model takes from the training events: its memory, and the statistics of both."""

from dataclasses import dataclass, replace

import numpy as np

from mmtpp.core.errors import DataError
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.samples.event_span import usable_events
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.expert.next_events import EventBlocks, ScoredSequence
from mmtpp.expert.training_statistics import TrainingStatistics
from mmtpp.soft.soft_settings import SoftSettings

STATISTICS_EVENTS = 2**21
"""About how many training events the statistics are taken from: the first of the store."""
_NUM_QUANTILES = 1001


@dataclass(frozen=True, slots=True)
class SoftStart:
    """From what a soft model starts.

    Attributes:
        settings: Settings of the model.
        statistics: Statistics of the training events; None if the model continues a saved one.
    """

    settings: SoftSettings
    statistics: TrainingStatistics | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChoice:
    """What the memory of soft tokens reads.

    Attributes:
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        seconds_per_unit: Length of the source's unit, in seconds.
        time_zone: IANA name of the zone of the calendar.
        with_calendar: Whether the calendar is used where the events span it.
        has_texts: Whether the lengths of texts are columns.
    """

    tick: float
    seconds_per_unit: float
    time_zone: str
    with_calendar: bool
    has_texts: bool


def fit_memory(
    settings: SampleSettings, choice: MemoryChoice
) -> tuple[MemorySettings, TrainingStatistics]:
    """Fit the memory and its statistics to training events.

    Args:
        settings: Settings of the training samples.
        choice: What the memory reads.

    Raises:
        DataError: No training interval is above zero.
    """
    sequences = _read_some(settings, has_texts=choice.has_texts)
    try:
        if not sequences:
            raise ValueError("no training sequence has two events")
        memory = MemorySettings.fit(
            PastEvents.join(sequence.past for sequence in sequences),
            tick=choice.tick,
            seconds_per_unit=choice.seconds_per_unit,
            time_zone=choice.time_zone,
            with_calendar=choice.with_calendar,
        )
    except ValueError as error:
        raise DataError(str(error), where=settings.store.data_uri) from error
    blocks = EventBlocks.from_sequences(memory, sequences, tick=choice.tick)
    statistics = TrainingStatistics.from_events(blocks)
    quantiles = np.quantile(statistics.log_intervals, np.linspace(0, 1, _NUM_QUANTILES))
    return memory, replace(statistics, log_intervals=quantiles)


def _read_some(settings: SampleSettings, *, has_texts: bool) -> list[ScoredSequence]:
    """The first sequences of the store with about ``STATISTICS_EVENTS`` training events."""
    reader = StoreReader(settings.store)
    sequences: list[ScoredSequence] = []
    num_events = 0
    for sequence in reader.sequences(reader.files()):
        span = usable_events(sequence, settings.split, settings.time_range)
        is_target = np.arange(span.end) >= max(1, span.first_target)
        if not is_target.any():
            continue
        lengths = np.diff(sequence.events.text_offsets[: span.end + 1])
        past = PastEvents.from_sequence(
            sequence.times[: span.end], sequence.events.types[: span.end], lengths * has_texts
        )
        sequences.append(ScoredSequence(sequence.sequence_id, past, is_target))
        num_events += span.end
        if num_events >= STATISTICS_EVENTS:
            break
    return sequences
