"""Builds the training of a new or continued expert, and the expert from a finished training."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from mmtpp.core.errors import DataError
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.seeds import seed_from
from mmtpp.expert.expert_folder import SURPRISE_SHARE, Expert, load_expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.network_losses import ALONE, Ranks
from mmtpp.expert.network_start import TrainedStart
from mmtpp.expert.new_events import as_read_by, targets_between, with_replay
from mmtpp.expert.next_events import EventBlocks, ScoredSequence
from mmtpp.expert.read_sequences import (
    count_events,
    has_images,
    read_sequences,
    without_images,
    without_words,
)
from mmtpp.train.expert_inputs import ExpertInputs

logger = logging.getLogger(__name__)


def build_fit(inputs: ExpertInputs, ranks: Ranks) -> ExpertFit:
    """Read the events and build the training at its start.

    Raises:
        DataError: No training event is scored, or all intervals are zero.
        ModelError: The folder of the expert that is continued is damaged.
    """
    started = time.monotonic()
    training = read_sequences(inputs.train_sequence_settings)
    validation = (
        read_sequences(inputs.validation_sequence_settings)
        if inputs.validation_sequence_settings is not None
        else []
    )
    if inputs.continued is None:
        fit = build_new_fit(inputs, training, validation, ranks)
    else:
        expert = load_expert(inputs.continued.model_uri)
        fit = build_continued_fit(inputs, expert, training, validation, ranks)
    if ranks.rank == 0:
        logger.info(
            "%d training events an epoch and %d validation events, %d columns of memory, read in "
            "%.1f s; %d networks of at most %d steps",
            fit.events_per_epoch,
            count_events(validation),
            len(fit.memory.column_names),
            time.monotonic() - started,
            fit.settings.num_networks,
            fit.num_steps,
        )
    return fit


def build_new_fit(
    inputs: ExpertInputs,
    training: Sequence[ScoredSequence],
    validation: Sequence[ScoredSequence],
    ranks: Ranks = ALONE,
) -> ExpertFit:
    """Training of new networks on sequences, at its start.

    Args:
        inputs: What the driver sent.
        training: Training sequences.
        validation: Validation sequences; none keeps the last weights.
        ranks: This process among the ranks.

    Raises:
        DataError: No training event is scored, or all intervals are zero.
    """
    where = inputs.train_sequence_settings.sample_settings.store.data_uri
    if not count_events(training):
        raise DataError(
            "no training sequence has two events",
            where=where,
            cause="the expert learns from the events after the first one of each sequence",
        )
    memory = _fit_memory(inputs, training, where=where)
    if not memory.has_texts:
        training, validation = without_words(training), without_words(validation)
    reads_images = has_images(training)
    if not reads_images:
        training, validation = without_images(training), without_images(validation)
    return ExpertFit(
        EventBlocks.from_sequences(memory, training, tick=inputs.tick),
        _validation_blocks(memory, validation, tick=inputs.tick),
        num_types=len(inputs.train_sequence_settings.type_codes),
        settings=inputs.fit_settings,
        num_words=inputs.train_sequence_settings.texts.num_words if memory.has_texts else 0,
        reads_images=reads_images,
        ranks=ranks,
    )


def build_continued_fit(
    inputs: ExpertInputs,
    expert: Expert,
    training: Sequence[ScoredSequence],
    validation: Sequence[ScoredSequence],
    ranks: Ranks = ALONE,
) -> ExpertFit:
    """Training that continues the networks of an expert on new events, at its start.

    Args:
        inputs: What the driver sent, with ``continued``.
        expert: The expert.
        training: Training sequences, with at least the words and images that the expert reads.
        validation: Validation sequences; none keeps the last weights.
        ranks: This process among the ranks.

    Raises:
        DataError: No new event is scored.
    """
    continued = inputs.continued
    assert continued is not None
    num_new = count_events(targets_between(training, continued.new_from, None))
    if not num_new:
        raise DataError(
            "no training event is new",
            where=inputs.train_sequence_settings.sample_settings.store.data_uri,
            cause="the store, or with split.by = time its training events, end before the time "
            "from which events are new; prepare it again with the new events",
            setting=f"update.new_from, which is {continued.new_from:g} in the source's unit",
        )
    replayed = [
        with_replay(
            as_read_by(expert, sequences),
            continued.new_from,
            replay=continued.replay,
            seed=seed_from("replay", inputs.fit_settings.seed, part),
        )
        for part, sequences in (("train", training), ("validation", validation))
    ]
    if count_events(validation) and not count_events(replayed[1]):
        if ranks.rank == 0:
            logger.warning(
                "no validation event is new: the networks are validated on the %d older ones",
                count_events(validation),
            )
        replayed[1] = as_read_by(expert, validation)
    return ExpertFit(
        EventBlocks.from_sequences(expert.memory, replayed[0], tick=inputs.tick),
        _validation_blocks(expert.memory, replayed[1], tick=inputs.tick),
        num_types=expert.networks[0].size.num_types,
        settings=replace(inputs.fit_settings, num_networks=len(expert.networks)),
        num_words=expert.texts.num_words,
        reads_images=expert.reads_images,
        ranks=ranks,
        start=TrainedStart(expert.networks, continued.num_prompts),
    )


def _validation_blocks(
    memory: MemorySettings, validation: Sequence[ScoredSequence], *, tick: float
) -> EventBlocks | None:
    """Blocks of the validation events; None if there are none."""
    if not count_events(validation):
        return None
    return EventBlocks.from_sequences(memory, validation, tick=tick)


def _fit_memory(
    inputs: ExpertInputs, training: Sequence[ScoredSequence], *, where: str
) -> MemorySettings:
    """Settings of the memory, from the training events.

    Raises:
        DataError: All intervals are zero.
    """
    try:
        return MemorySettings.fit(
            PastEvents.join(sequence.past for sequence in training),
            tick=inputs.tick,
            seconds_per_unit=inputs.trained_tasks.seconds_per_unit,
            time_zone=inputs.time_zone,
            with_calendar=inputs.calendar,
        )
    except ValueError as error:
        raise DataError(str(error), where=where) from error


def build_expert(fit: ExpertFit, inputs: ExpertInputs) -> Expert:
    """The expert of a finished training."""
    networks = tuple(fit.networks())
    image_px = (
        inputs.train_sequence_settings.sample_settings.store.image_px
        if networks[0].size.reads_images
        else 0
    )
    return Expert(fit.memory, inputs.tick, networks, image_px)


def with_surprise_limit(expert: Expert, fit: ExpertFit, inputs: ExpertInputs) -> Expert:
    """The expert with the limit of its training, or that of the expert that was continued."""
    limit = fit.surprise_limit(expert.networks, SURPRISE_SHARE)
    if limit is None and inputs.continued is not None:
        limit = inputs.continued.surprise_limit
    return replace(expert, surprise_limit=limit)
