"""Plans the training of a soft model: its memory, and the record of its tasks."""

import logging
from dataclasses import replace

from mmtpp.config.expert_settings import DROPOUT
from mmtpp.config.schema import ExpertSection, ModelSection, RunConfig
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.soft.soft_settings import SoftSettings, load_soft_settings
from mmtpp.soft.soft_start import MemoryChoice, SoftStart, fit_memory
from mmtpp.storage.manifest import Manifest
from mmtpp.train.launch.task_record import build_density_tasks
from mmtpp.train.launch.training_checks import check_time_zone
from mmtpp.train.worker_inputs import WorkerInputs

logger = logging.getLogger(__name__)


def with_soft_tokens(inputs: WorkerInputs, config: RunConfig, manifest: Manifest) -> WorkerInputs:
    """The inputs of a training whose samples have soft tokens.

    Args:
        inputs: The inputs of a training of tokens.
        config: The whole configuration.
        manifest: Manifest of the store.

    Raises:
        ConfigError, DataError, ModelError: As ``build_soft_start`` raises them.
    """
    training, validation = inputs.train_sample_settings, inputs.validation_sample_settings
    # this and the record of the tasks read all training events
    soft = build_soft_start(config.expert, config.model, manifest, training)
    memory = soft.settings.memory
    return replace(
        inputs,
        train_sample_settings=replace(training, memory=memory),
        validation_sample_settings=validation and replace(validation, memory=memory),
        trained_tasks=build_soft_tasks(manifest, training),
        soft=soft,
    )


def build_soft_start(
    expert: ExpertSection, model: ModelSection, manifest: Manifest, settings: SampleSettings
) -> SoftStart:
    """From what the training of a soft model starts.

    Args:
        expert: Memory and size of the network on the language model.
        model: Model or adapter that is trained further, if any.
        manifest: Manifest of the store.
        settings: Settings of the training samples.

    Raises:
        ConfigError: There is a time zone, but the times are no dates.
        DataError: No training interval is above zero.
        ModelError: The files of the model that is continued are damaged.
    """
    saved = load_soft_settings(model.adapter or model.path)
    if saved is not None:
        logger.info("continuing the soft tokens of %s", model.adapter or model.path)
        return SoftStart(saved, None)
    check_time_zone(expert, manifest, where=settings.store.data_uri)
    choice = MemoryChoice(
        tick=manifest.tick,
        seconds_per_unit=manifest.seconds_per_unit,
        time_zone=expert.time_zone,
        with_calendar=expert.calendar,
        has_texts=expert.texts != "none",
    )
    memory, statistics = fit_memory(settings, choice)
    soft_settings = SoftSettings(
        memory=memory,
        tick=manifest.tick,
        type_codes=tuple(manifest.occurring_types),
        width=expert.width,
        num_components=expert.num_components,
        dropout=DROPOUT if expert.dropout == "auto" else expert.dropout,
    )
    return SoftStart(soft_settings, statistics)


def build_soft_tasks(manifest: Manifest, settings: SampleSettings) -> TrainedTasks:
    """The record of the tasks of a soft model.

    Args:
        manifest: Manifest of the store.
        settings: Settings of the training samples.
    """
    return build_density_tasks(manifest, interval_range(settings), manifest.occurring_types)
