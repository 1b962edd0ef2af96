"""Checks before a training starts: settings, store, model and cluster fit each other."""

import logging
from dataclasses import dataclass

from mmtpp.config.schema import Lora, Model, SampleSections, Training
from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.data.settings import store_vocabulary
from mmtpp.model.adapter import check_adapter
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.record import check_template
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import check_bucket, exists, join
from mmtpp.train.task import PROGRESS_FILE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """Manifest and vocabulary of the store.

    Attributes:
        manifest: Manifest of the store.
        vocabulary: Vocabulary of the store, and of the model to train.
    """

    manifest: Manifest
    vocabulary: Vocabulary


def check_settings(training: Training, model: Model, lora: Lora) -> None:
    """Check the settings of a training against each other.

    Raises:
        ConfigError: The settings contradict each other.
    """
    _check_workers(training)
    if model.preset != "tiny" and not model.path:
        raise ConfigError(
            f"preset {model.preset} needs the folder of its weights",
            setting="model.path, which is empty",
        )
    if model.adapter and not (model.path and lora.rank):
        raise ConfigError(
            "training from an adapter needs its base model and its rank",
            setting=f"model.adapter = {model.adapter}, model.path = {model.path!r}, "
            f"lora.rank = {lora.rank}",
        )
    if training.max_flops and (model.path or lora.rank):
        raise ConfigError(
            "training.max_flops compares fresh models",
            cause="a loaded model or an adapter has no budget of its own; set training.num_steps",
            setting=f"model.path = {model.path!r}, lora.rank = {lora.rank}",
        )


def _check_workers(training: Training) -> None:
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


def check_locations(storage_uri: str, start_uri: str, *, keep_checkpoints: int) -> None:
    """Check that a run can be stored, and that the checkpoint to start from exists.

    Args:
        storage_uri: Folder of the runs, ``run.storage_uri``.
        start_uri: Folder of another run's checkpoint to start from; empty for none.
        keep_checkpoints: Number of checkpoints that a run keeps, for the error.

    Raises:
        StorageError: The bucket cannot be reached, or the checkpoint does not exist.
    """
    check_bucket(storage_uri)
    if start_uri and not exists(join(start_uri, PROGRESS_FILE)):
        raise StorageError(
            "the checkpoint to start from does not exist",
            where=start_uri,
            cause="its run has deleted it, since a run keeps its newest checkpoints only",
            setting=f"training.keep_checkpoints = {keep_checkpoints}",
        )


def load_inputs(sections: SampleSections, model: Model, lora: Lora) -> TrainingInputs:
    """Load the store's manifest and vocabulary, and check that the model fits them.

    Raises:
        StorageError: The store or the model cannot be read.
        ModelError: Vocabulary, template or adapter of the model do not fit.
    """
    manifest = load_manifest(sections.store.uri)
    vocabulary = store_vocabulary(sections.store.uri, manifest)
    for uri in filter(None, (model.path, model.adapter)):
        model_vocabulary = load_model_vocabulary(uri)
        check_same_vocabulary(model_vocabulary.hash, vocabulary.hash, where=uri)
        check_template(sections, uri, to_train=True)
    if model.adapter:
        check_adapter(model.adapter, rank=lora.rank, alpha=lora.alpha)
    return TrainingInputs(manifest, vocabulary)
