"""Forecasts of a temporal expert for all sequences of a store, in Ray tasks."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.read_sequences import SequenceSettings, read_whole_sequences
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.predict.density_next_event import DensityForecastSettings, forecast_next_events
from mmtpp.predict.forecast_result import forecast_rows, forecast_schema
from mmtpp.runtime.block_tasks import map_blocks

SEQUENCES_PER_TASK = 500
_SEQUENCES_AT_ONCE = 64

NamedSequence = tuple[str, PastEvents]


def expert_tables(
    expert_uri: str,
    sample_settings: SampleSettings,
    settings: DensityForecastSettings,
    machine_labels: Mapping[str, str],
) -> Iterator[pa.Table]:
    """Forecast the next event of every sequence.

    Args:
        expert_uri: Folder of the expert.
        sample_settings: Settings of the samples, of which only the store matters.
        settings: Settings of the forecasts.
        machine_labels: Ray labels of the machines that run the tasks.

    Returns:
        Tables of ``forecast_schema``, in the order of the sequences' names.

    Raises:
        DataError: A type is not among the expert's.
    """
    expert = load_expert(expert_uri)
    codes = settings.trained_tasks.type_codes
    sequences = read_whole_sequences(
        SequenceSettings(sample_settings, codes, expert.texts, expert.reads_images)
    )
    starts = range(0, len(sequences), SEQUENCES_PER_TASK)
    blocks = [sequences[start : start + SEQUENCES_PER_TASK] for start in starts]
    return map_blocks(
        forecast_block,
        expert,
        blocks,
        settings,
        machine_labels=machine_labels,
        title="predict",
    )


def forecast_block(
    expert: Expert, sequences: Sequence[NamedSequence], settings: DensityForecastSettings
) -> pa.Table:
    """Forecast the next event of sequences.

    Args:
        expert: The expert.
        sequences: Names of sequences, and all their events.
        settings: Settings of the forecasts.

    Returns:
        Table of ``forecast_schema``, one row for each sequence.
    """
    levels = settings.prediction.quantiles
    records: list[dict[str, object]] = []
    for start in range(0, len(sequences), _SEQUENCES_AT_ONCE):
        names, pasts = zip(*sequences[start : start + _SEQUENCES_AT_ONCE], strict=True)
        states = [SequenceState.after(expert.memory, past) for past in pasts]
        forecasts = forecast_next_events(names, expert, states, settings)
        records += forecast_rows(forecasts, levels)
    schema = forecast_schema(settings.trained_tasks, settings.prediction)
    return pa.Table.from_pylist(records, schema)
