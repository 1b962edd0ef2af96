"""The start of a job that scores a model on a store: ``evaluate`` and ``combine``."""

from dataclasses import replace

from mmtpp.config.fingerprint import run_name
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.model.folders.description import ModelDescription
from mmtpp.runtime.hardware import choose_hardware
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.paths import join
from mmtpp.track.tracker import RunIdentity


def identify_evaluation(config: RunConfig, job: str, store: PreparedStore) -> RunIdentity:
    """Name, folder and tracking key of a job.

    Args:
        config: The whole configuration.
        job: ``evaluate`` or ``combine``.
        store: The store.
    """
    fingerprint = store.manifest.fingerprint
    name = run_name(config, job, store=fingerprint)
    return RunIdentity(name, join(config.run.storage_uri, name), f"{name}-{fingerprint[:16]}")


def start_evaluation(
    config: RunConfig, store: PreparedStore, description: ModelDescription, run: RunIdentity
) -> EvaluationContext:
    """Start Ray, and gather what the steps of the evaluation share.

    Args:
        config: The whole configuration, with the model and the split that are scored.
        store: The store.
        description: Kind and tasks of the model.
        run: Name and folder of the job.

    Raises:
        ConfigError: Settings of samples do not fit the store.
        ClusterError: The machines did not join in time.
    """
    held_out, training = (
        build_sample_settings(
            config.sample_sections,
            store.manifest,
            split=split,
            reads_template=description.reads_template,
            max_sequences=max_sequences,
        )
        for split, max_sequences in (
            (config.evaluation.split, config.evaluation.max_sequences),
            ("train", 0),
        )
    )
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    return EvaluationContext.from_config(
        config,
        store,
        held_out_sample_settings=held_out,
        training_sample_settings=replace(training, time_from=None),
        hardware=choose_hardware(config.training, config.model.precision),
        run_uri=run.run_uri,
    )
