"""From the configuration and a store's manifest to what the assembling functions take."""

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.data.assemble import AssembleSettings
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary, check_same_vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import join, read_bytes


def assemble_settings(config: RunConfig, manifest: Manifest, *, split: str) -> AssembleSettings:
    """How samples of a split are made: packed for training, single windows for scoring.

    Raises:
        ConfigError: the store's images have another size than the template wants.
    """
    if manifest.image_px != config.template.image_px:
        raise ConfigError(
            f"template.image_px = {config.template.image_px}, but the images of the store have "
            f"{manifest.image_px}; prepare it again or change the setting"
        )
    training = split == "train"
    return AssembleSettings(
        data_uri=join(config.store.uri, manifest.data_folder),
        store_fingerprint=manifest.fingerprint,
        strategy=config.compression.strategy,
        delta=float(config.compression.delta),
        style=config.template.style,
        images=config.template.images,
        image_px=config.template.image_px,
        max_tokens=config.window.max_tokens,
        overlap_fraction=float(
            config.window.overlap_fraction if training else config.evaluation.overlap_fraction
        ),
        time_from=float(config.window.time_from),
        time_to=float(config.window.time_to),
        split=split,
        max_sequences=0 if training else config.evaluation.max_sequences,
        targets_delta=0.0 if training else float(config.evaluation.targets_delta),
        packed=training,
        seed=config.training.seed,
    )


def store_vocabulary(store_uri: str, manifest: Manifest) -> Vocabulary:
    """The vocabulary the store's texts were tokenised with.

    Raises:
        ModelError: it is not the one the manifest records.
    """
    uri = join(store_uri, manifest.data_folder, TOKENIZER_FILE)
    vocabulary = Vocabulary(read_bytes(uri).decode())
    check_same_vocabulary(vocabulary.hash, manifest.vocabulary_hash, where=uri)
    return vocabulary
