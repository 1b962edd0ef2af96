"""What the workers need to continue an expert on new events."""

from dataclasses import replace

from mmtpp.config.schema import UpdateSection
from mmtpp.core.errors import ModelError
from mmtpp.core.split import parse_instant
from mmtpp.expert.expert_folder import load_expert
from mmtpp.expert.fit import ExpertFitSettings
from mmtpp.model.folders.record import load_trained_tasks
from mmtpp.train.expert_inputs import ContinuedTraining, ExpertInputs


def continue_inputs(inputs: ExpertInputs, update: UpdateSection) -> ExpertInputs:
    """The inputs of a training that continues an expert.

    Sequences are read as the expert reads them, whatever the section ``expert`` says. The range of
    the intervals is that of all training events, old and new.

    Args:
        inputs: Inputs of a training of a new expert on the same store.
        update: Section ``update`` of the settings.

    Raises:
        ModelError: The folder is damaged, or it holds no expert.
    """
    expert, trained_tasks = load_expert(update.model), load_trained_tasks(update.model)
    if trained_tasks is None:
        raise ModelError("the folder has no record of the types of the expert", where=update.model)
    new_from = parse_instant(update.new_from, seconds_per_unit=trained_tasks.seconds_per_unit)
    assert new_from is not None  # the job requires it
    trains_prompts = update.trains == "prompts"
    train_settings, validation_settings = (
        settings
        and replace(
            settings,
            type_codes=trained_tasks.type_codes,
            texts=expert.texts,
            reads_images=expert.reads_images,
        )
        for settings in (inputs.train_sequence_settings, inputs.validation_sequence_settings)
    )
    assert train_settings is not None
    interval_range = trained_tasks.interval_range.joined(inputs.trained_tasks.interval_range)
    fit = continue_settings(inputs.fit_settings, update, trains_prompts=trains_prompts)
    return replace(
        inputs,
        fit_settings=replace(fit, num_networks=len(expert.networks)),
        train_sequence_settings=train_settings,
        validation_sequence_settings=validation_settings,
        trained_tasks=replace(trained_tasks, interval_range=interval_range),
        continued=ContinuedTraining(
            model_uri=update.model,
            new_from=new_from,
            replay=update.replay,
            num_prompts=update.num_prompts if trains_prompts else 0,
            surprise_limit=expert.surprise_limit,
        ),
    )


def continue_settings(
    fit: ExpertFitSettings, update: UpdateSection, *, trains_prompts: bool
) -> ExpertFitSettings:
    """Settings of a training that continues networks.

    Args:
        fit: Settings of their training from the start.
        update: Section ``update`` of the settings.
        trains_prompts: Whether only prompts are trained.
    """
    rate = update.prompt_learning_rate if trains_prompts else update.learning_rate
    # both were chosen for random weights that learn from few events; these networks are trained
    return replace(
        fit, epochs=update.epochs, learning_rate=rate, memory_dropout=0.0, hawkes_fraction=0.0
    )
