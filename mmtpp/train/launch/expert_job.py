"""The training of a temporal expert: configuration in, its folder out. Runs on the driver."""

import logging
from dataclasses import fields, replace

from mmtpp.config.schema import ExpertSection, RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.core.past.event_words import MAX_WORD_ROWS, TextSettings
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.expert.fit import ExpertFitSettings
from mmtpp.expert.read_sequences import SequenceSettings
from mmtpp.model.folders.card import expert_card
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.runtime.hardware import Hardware
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, join
from mmtpp.track.mlflow_tracker import import_early
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.launch.continued_expert import continue_inputs
from mmtpp.train.launch.planned_training import PlannedTraining, TrainingJob
from mmtpp.train.launch.recorded_training import train_and_record
from mmtpp.train.launch.run_folder import claim_run, find_finished
from mmtpp.train.launch.task_record import build_density_tasks
from mmtpp.train.launch.training_checks import check_time_zone
from mmtpp.train.launch.training_hardware import wait_for_workers

logger = logging.getLogger(__name__)

_ON_CPU = Hardware(on_gpu=False, precision="float32")


def run_expert_job(job: TrainingJob) -> dict[str, object]:
    """Train a temporal expert on the events of a store.

    Args:
        job: The training job, ``pretrain`` or ``update``. An expert does not start from a
            checkpoint of another run, so its ``start_uri`` must be empty.

    Returns:
        The result that ``pretrain`` describes.

    Raises:
        ConfigError: The settings do not apply to an expert.
        MmtppError: The store does not fit, or a worker raised this error.
    """
    _check_start(job.start_uri)
    config = job.config
    check_bucket(config.run.storage_uri)
    store = load_store(config.store.uri)
    fingerprint = store.manifest.fingerprint
    finished = find_finished(config, job.name, store_fingerprint=fingerprint)
    if finished is not None:
        return finished.log_and_return()
    job = job.with_start_up_part("checks")
    import_early()  # while Ray connects and the sequences are read
    patience_s = config.run.wait_for_machines_s
    start_ray_for_data(config.store.machine_labels, patience_s=patience_s)
    wait_for_workers(config.training, _ON_CPU, patience_s=patience_s)
    job = job.with_start_up_part("machines")
    # claimed after the wait: until then, settings may change under the same name of a run
    run = claim_run(config, job.name, store_fingerprint=fingerprint)
    inputs = build_inputs(config, store, run, reports_validation=bool(job.callbacks))
    if job.is_update:
        inputs = continue_inputs(inputs, config.update)
    planned = PlannedTraining(
        job=job,
        manifest=store.manifest,
        hardware=_ON_CPU,
        inputs=replace(inputs, start_up=job.start_up.with_part("plan")),
        output_kind="model",
        description=_describe(job.name, inputs, store_uri=config.store.uri),
    )
    return train_and_record(planned)


def _check_start(start_uri: str) -> None:
    if start_uri:
        raise ConfigError(
            "a new expert starts from no checkpoint of another run",
            where=start_uri,
            cause="a population continues the trainings of other trials",
            setting="sweep.scheduler.kind = pbt",
        )


def build_inputs(
    config: RunConfig, store: PreparedStore, run: RunIdentity, *, reports_validation: bool
) -> ExpertInputs:
    """What every worker needs.

    Args:
        config: The whole configuration.
        store: The store.
        run: Name and folder of the run.
        reports_validation: Whether Ray Train's callbacks receive validations.

    Raises:
        ConfigError: There is a time zone, but the times are no dates.
        DataError: No training interval is above zero.
    """
    expert, manifest, vocabulary = config.expert, store.manifest, store.vocabulary
    check_time_zone(expert, manifest, where=store.uri)
    by_split = {
        split: build_sample_settings(
            config.sample_sections, manifest, split=split, reads_template=False
        )
        for split in ("train", "validation")
    }
    texts, reads_images = _text_settings(expert, vocabulary), expert.images == "last"
    trained_tasks = build_density_tasks(
        manifest, interval_range(by_split["train"]), _type_codes(manifest)
    )
    sequences = {
        split: SequenceSettings(by_split[split], trained_tasks.type_codes, texts, reads_images)
        for split in by_split
    }
    has_validation = _has_validation(manifest, expert)
    return ExpertInputs(
        run=run,
        tracking=config.tracking,
        fit_settings=fit_settings(
            expert,
            config.training.seed,
            num_events=manifest.events_by_split["train"],
            num_types=len(trained_tasks.type_codes),
            has_validation=has_validation,
        ),
        train_sequence_settings=sequences["train"],
        validation_sequence_settings=sequences["validation"] if has_validation else None,
        data_fingerprint=manifest.fingerprint,
        calendar=expert.calendar,
        time_zone=expert.time_zone,
        tokenizer_json=vocabulary.tokenizer_json,
        trained_tasks=trained_tasks,
        output_uri=join(run.run_uri, "model"),
        card=expert_card(trained_tasks, store_uri=config.store.uri, reads_images=reads_images),
        log_every=config.training.log_every,
        upload_timeout_s=config.training.upload_timeout_s,
        reports_validation=reports_validation,
    )


def _text_settings(expert: ExpertSection, vocabulary: Vocabulary) -> TextSettings:
    reads_words = expert.texts == "words"
    return TextSettings(
        has_lengths=expert.texts != "none",
        num_words=min(vocabulary.byte_base, MAX_WORD_ROWS) if reads_words else 0,
    )


def _has_validation(manifest: Manifest, expert: ExpertSection) -> bool:
    if manifest.sequences_by_split["validation"]:
        return True
    logger.warning(
        "the store has no validation events (prepared with split.by = %s), so the networks train "
        "for expert.epochs = %d without early stopping, and may overfit",
        manifest.split_by,
        expert.epochs_for(manifest.events_by_split["train"], has_validation=False),
    )
    return False


def _type_codes(manifest: Manifest) -> tuple[int, ...]:
    """Codes of all types that have a name; without names, of those that occur."""
    if manifest.type_names:
        return tuple(range(len(manifest.type_names)))
    return tuple(manifest.occurring_types)


def fit_settings(
    expert: ExpertSection, seed: int, *, num_events: int, num_types: int, has_validation: bool
) -> ExpertFitSettings:
    """Settings of the training of an expert's networks.

    Args:
        expert: Section ``expert`` of the settings.
        seed: Seed of the training.
        num_events: Number of training events.
        num_types: Number of types.
        has_validation: Whether there are validation events.
    """
    values = expert.model_dump(include={field.name for field in fields(ExpertFitSettings)})
    if expert.events_per_step == "auto":
        values["events_per_step"] = None
    if expert.next_image_weight == "auto":
        values["next_image_weight"] = None
    values["dropout"] = expert.dropout_for(num_events)
    values["memory_dropout"] = expert.memory_dropout_for(num_events)
    values["hawkes_fraction"] = expert.hawkes_fraction_for(num_events, num_types)
    values["epochs"] = expert.epochs_for(num_events, has_validation=has_validation)
    return ExpertFitSettings(**values, seed=seed)


def _describe(job: str, inputs: ExpertInputs, *, store_uri: str) -> str:
    """Model, data and output of a run, in Markdown."""
    return (
        f"**{job}** of a temporal expert, {inputs.fit_settings.num_networks} networks\n\n"
        f"- store: `{store_uri}`\n- model: `{inputs.output_uri}`\n"
        f"- checkpoints: `{inputs.run.run_uri}`"
    )
