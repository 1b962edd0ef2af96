"""Times and types of the sequences of a split, for the baselines."""

from collections.abc import Sequence

import numpy as np

from mmtpp.core.point_processes.history import History
from mmtpp.data.samples.event_span import usable_events
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader


def read_histories(settings: SampleSettings, type_codes: Sequence[int]) -> list[History]:
    """Read times and types of the sequences of a split, within its time range.

    A sequence that is cut in time begins with its past and ends where the split ends.

    Args:
        settings: Settings of the split.
        type_codes: Codes of the types that occur; ``History.types`` are indices of them.
    """
    reader = StoreReader(settings.store)
    index_of = np.zeros(max(type_codes) + 1, dtype=np.int64)
    index_of[list(type_codes)] = np.arange(len(type_codes))
    histories: list[History] = []
    for sequence in reader.sequences(reader.files()):
        span = usable_events(sequence, settings.split, settings.time_range)
        if span.has_targets and len(span) > 1:
            types = index_of[sequence.events.types[span.first : span.end]]
            times = sequence.times[span.first : span.end]
            histories.append(History(sequence.sequence_id, times, types, settings.store.tick))
    return histories
