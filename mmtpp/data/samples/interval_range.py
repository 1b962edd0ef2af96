"""The range of a store's training intervals: the support of forecasts."""

import numpy as np

from mmtpp.core.errors import DataError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.data.samples.event_span import usable_events
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader


def interval_range(settings: SampleSettings) -> IntervalRange:
    """The smallest and largest interval above zero among the training events.

    Args:
        settings: Settings of the training samples.

    Raises:
        DataError: No interval is above zero.
    """
    reader, tick = StoreReader(settings.store), settings.store.tick
    smallest, largest = np.inf, 0.0
    for sequence in reader.sequences(reader.files()):
        span = usable_events(sequence, settings.split, settings.time_range)
        if span.has_targets:
            # the first event is not predicted
            first_target = max(span.first + 1, span.first_target)
            intervals = sequence.events.intervals[first_target : span.end]
            smallest = min(smallest, intervals[intervals > 0].min(initial=np.inf))
            largest = max(largest, intervals.max(initial=0.0))
    if not largest:
        raise DataError(
            f"no interval of the {settings.split} split is above zero",
            where=settings.store.data_uri,
            cause="all events of a sequence are simultaneous: there is no time to forecast",
        )
    return IntervalRange(max(float(smallest), tick), float(largest), tick)
