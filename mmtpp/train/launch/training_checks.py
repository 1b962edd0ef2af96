"""Checks before a training starts: store, model and storage fit each other."""

from mmtpp.config.schema import ExpertSection, LoraSection, ModelSection, SampleSections
from mmtpp.core.errors import ConfigError, StorageError
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.model.backbones.registry import check_backbone
from mmtpp.model.folders.adapter import check_adapter
from mmtpp.model.folders.folder import check_vocabularies
from mmtpp.model.folders.record import check_template
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, exists, join
from mmtpp.train.worker_inputs import PROGRESS_FILE


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


def load_training_store(
    sections: SampleSections, model: ModelSection, lora: LoraSection
) -> PreparedStore:
    """Load the store, and check that the model fits it.

    Raises:
        StorageError: The store or the model cannot be read.
        ModelError: Family, vocabulary, template or adapter of the model do not fit.
    """
    store = load_store(sections.store.uri)
    check_backbone(model, sections.template)
    check_vocabularies((model.path, model.adapter), store.vocabulary)
    for uri in filter(None, (model.path, model.adapter)):
        check_template(sections, uri, to_train=True)
    if model.adapter:
        check_adapter(model.adapter, rank=lora.rank, alpha=lora.alpha)
    return store


def check_time_zone(expert: ExpertSection, manifest: Manifest, *, where: str) -> None:
    """Check that the calendar of an expert, or of soft tokens, can have a time zone.

    Args:
        expert: Section ``expert`` of the settings.
        manifest: Manifest of the store.
        where: Location of the store, for the error.

    Raises:
        ConfigError: The times of the store are no dates.
    """
    if expert.time_zone != "UTC" and not manifest.times_are_dates:
        raise ConfigError(
            "a time zone needs times that are dates; those of the store are numbers",
            where=where,
            setting=f"expert.time_zone = {expert.time_zone}",
        )
