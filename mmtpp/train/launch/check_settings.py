"""Checks before a training starts: settings, store, model and cluster fit each other."""

import logging
from dataclasses import dataclass

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.data.settings import store_vocabulary
from mmtpp.model.adapter import check_adapter
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.record import check_template
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary
from mmtpp.runtime.hardware import Hardware, choose_hardware, worker_demand
from mmtpp.runtime.machines import data_task_demand, wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import check_bucket, exists, join
from mmtpp.train.task import PROGRESS_FILE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """The store that a training reads.

    Attributes:
        manifest: Manifest of the store.
        vocabulary: Vocabulary of the store, and of the model to train.
    """

    manifest: Manifest
    vocabulary: Vocabulary


def check_settings(config: RunConfig) -> None:
    """Check the settings of a training against each other.

    Raises:
        ConfigError: The settings contradict each other.
    """
    training = config.training
    if training.samples_per_step < training.num_workers:
        raise ConfigError(
            "every worker needs at least one sample per step",
            cause="training.samples_per_step is smaller than training.num_workers",
            setting=f"training.samples_per_step = {training.samples_per_step}, "
            f"training.num_workers = {training.num_workers}",
        )
    if training.min_workers > training.num_workers:
        raise ConfigError(
            "training.min_workers is larger than training.num_workers",
            setting=f"training.min_workers = {training.min_workers}, "
            f"training.num_workers = {training.num_workers}",
        )
    if training.samples_per_step % training.num_workers:
        logger.warning(
            "training.samples_per_step = %d is not a multiple of training.num_workers = %d: some "
            "workers have one sample less in every step, and wait",
            training.samples_per_step,
            training.num_workers,
        )
    if config.model.preset != "tiny" and not config.model.path:
        raise ConfigError(
            f"preset {config.model.preset} needs the folder of its weights",
            setting="model.path, which is empty",
        )
    if config.model.adapter and not (config.model.path and config.lora.rank):
        raise ConfigError(
            "training from an adapter needs its base model and its rank",
            setting=f"model.adapter = {config.model.adapter}, model.path = {config.model.path!r}, "
            f"lora.rank = {config.lora.rank}",
        )


def load_inputs(config: RunConfig, start_uri: str) -> TrainingInputs:
    """Load the store's manifest and vocabulary, and check that the model fits them.

    Args:
        config: Configuration of the job.
        start_uri: Folder of another run's checkpoint to start from; empty for none.

    Raises:
        StorageError: The bucket, the store, the model or the checkpoint cannot be read.
        ModelError: Vocabulary, template or adapter of the model do not fit.
    """
    check_bucket(config.run.storage_uri)
    if start_uri and not exists(join(start_uri, PROGRESS_FILE)):
        raise StorageError(
            "the checkpoint to start from does not exist",
            where=start_uri,
            cause="its run has deleted it, since a run keeps its newest checkpoints only",
            setting=f"training.keep_checkpoints = {config.training.keep_checkpoints}",
        )
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    for uri in filter(None, (config.model.path, config.model.adapter)):
        model_vocabulary = load_model_vocabulary(uri)
        check_same_vocabulary(model_vocabulary.hash, vocabulary.hash, where=uri)
        check_template(config, uri, to_train=True)
    if config.model.adapter:
        check_adapter(config.model.adapter, rank=config.lora.rank, alpha=config.lora.alpha)
    return TrainingInputs(manifest, vocabulary)


def wait_for_hardware(config: RunConfig) -> Hardware:
    """Start Ray, choose device and precision, and wait for the machines.

    Raises:
        ClusterError: The machines did not join in time.
        ConfigError: The precision needs another ZeRO stage.
    """
    training = config.training
    start_ray()
    hardware = choose_hardware(training, config.model.precision)
    num_workers = training.min_workers or training.num_workers
    workers = worker_demand(training, hardware, num_workers)
    for demand in (data_task_demand(config.store.machine_labels), workers):
        wait_for_machines(demand, patience_s=config.run.wait_for_machines_s)
    if hardware.precision == "bfloat16" and config.zero.stage == 0:
        raise ConfigError(
            "zero.stage = 0 trains in float32 only",
            cause="DeepSpeed keeps float32 weights next to bfloat16 ones from stage 1 on; stage 1 "
            "needs no more memory",
            setting=f"zero.stage = 0, model.precision = {config.model.precision}",
        )
    return hardware
