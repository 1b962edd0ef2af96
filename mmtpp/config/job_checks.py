"""Checks of settings that only some jobs use together; a dry run makes them too."""

import logging
import posixpath

from mmtpp.config.data_settings import SourceSection, SplitSection
from mmtpp.config.model_settings import LoraSection, ModelSection
from mmtpp.config.schema import RunConfig, SampleSections
from mmtpp.config.training_settings import TrainingSection
from mmtpp.core.errors import ConfigError
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.compression import RECENT_FULL
from mmtpp.core.representation.style_layout import SOFT

logger = logging.getLogger(__name__)


def check_prepare(config: RunConfig) -> None:
    """Check the settings of ``prepare`` against each other.

    Raises:
        ConfigError: The settings contradict each other.
    """
    _check_split(config.source, config.split)
    _check_taxi(config.source)
    source_uri, store_uri = config.source.uri, config.store.uri
    if lies_within(store_uri, source_uri):
        raise ConfigError(
            f"store.uri = {store_uri} is inside source.uri = {source_uri}, so the store would be "
            "read as events; choose a folder outside of it"
        )


def lies_within(inner: str, outer: str) -> bool:
    """Whether a URI is a folder or below it.

    Args:
        inner: The URI.
        outer: URI of the folder.
    """
    return f"{_location(inner)}/".startswith(f"{_location(outer)}/")


def _location(uri: str) -> str:
    """A URI in the one form that does not depend on how a local path is written."""
    scheme, separator, path = uri.partition("://")
    if separator and scheme != "file":
        return uri.rstrip("/")
    path = posixpath.normpath(path if separator else uri)
    return f"/{path.strip('/')}".rstrip("/")  # "" for the root, which holds every path


def check_predict(config: RunConfig) -> None:
    """Check that ``predict`` has events, and that they can be prepared.

    Raises:
        ConfigError: There are no events, or the settings contradict each other.
    """
    if not (config.source.uri or config.store.uri):
        raise ConfigError(
            "there are no events to forecast from",
            cause="predict reads the events of source.uri, or the prepared store of store.uri",
            setting="source.uri and store.uri, which are empty",
        )
    if not config.source.uri:
        return
    if config.store.uri:
        check_prepare(config)
    else:  # the job chooses the store and a split that holds out no events
        _check_taxi(config.source)


def _check_taxi(source: SourceSection) -> None:
    for name in ("trips", "zones"):
        if source.kind == "taxi" and not getattr(source.taxi, name):
            raise ConfigError(
                f"source.kind = taxi needs source.taxi.{name}",
                setting=f"source.taxi.{name}, which is empty",
            )


def _check_split(source: SourceSection, split: SplitSection) -> None:
    if source.columns.split and split.by != "given":
        raise ConfigError(
            f"source.columns.split = {source.columns.split} names a column of splits, which "
            f"split.by = {split.by} does not use; set split.by = given, or leave the column out"
        )
    if split.by == "time" and source.kind == "danmaku_qa":
        raise ConfigError(
            "split.by = time cannot cut the sequences of source.kind = danmaku_qa: their questions "
            "are about whole sequences; set split.by = hash or given"
        )


def check_training(config: RunConfig) -> None:
    """Check the settings of a training against each other, and warn of a likely mistake.

    Raises:
        ConfigError: The settings contradict each other.
    """
    training, model, lora = config.training, config.model, config.lora
    if config.model_kind == ModelKind.EXPERT:
        _check_expert(model)
        return
    if config.model_kind == ModelKind.SOFT:
        check_soft(config.sample_sections)
    check_recent_full(config.sample_sections)
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
    _warn_of_random_base(model, lora)


def check_soft(sections: SampleSections) -> None:
    """Check that nothing else shortens or lengthens events that are soft tokens.

    Args:
        sections: Sections of the configuration that shape samples.

    Raises:
        ConfigError: The template is soft, and events are compressed, or have a calendar or the
            names of their types as text.
    """
    template, strategy = sections.template, sections.compression.strategy
    if template.style != SOFT:
        return
    if strategy != "none":
        raise ConfigError(
            "soft tokens are not compressed: every event is one token already",
            cause="compression.strategy keeps its default; set it to none",
            setting=f"template.style = soft, compression.strategy = {strategy}",
        )
    if template.types != "code":
        raise ConfigError(
            "soft tokens have no names of types as text",
            setting=f"template.style = soft, template.types = {template.types}",
        )
    if template.calendar != "none":
        raise ConfigError(
            "soft tokens have no calendar as text: their memory reads the calendar",
            cause="expert.calendar and expert.time_zone decide what the memory reads",
            setting=f"template.style = soft, template.calendar = {template.calendar}",
        )


def check_recent_full(sections: SampleSections) -> None:
    """Check that older events are single tokens.

    Args:
        sections: Sections of the configuration that shape samples.

    Raises:
        ConfigError: Older events would be written as runs.
    """
    compression = sections.compression
    if compression.strategy == RECENT_FULL and compression.run_encoding != "token":
        raise ConfigError(
            "older events are one token each, not runs",
            setting=f"compression.strategy = {RECENT_FULL}, "
            f"compression.run_encoding = {compression.run_encoding}; set it to token",
        )


def check_finetune(config: RunConfig) -> None:
    """Check the settings of ``finetune`` against each other.

    Raises:
        ConfigError: The settings contradict each other.
    """
    if config.is_trained_by_pretrain:
        raise ConfigError(
            "an expert and a model of soft tokens are trained by pretrain alone: they can forecast "
            "at once",
            setting=f"model.preset = {config.model.preset}, template.style = "
            f"{config.template.style}; run jobs/pretrain.py",
        )
    check_training(config)


def _check_expert(model: ModelSection) -> None:
    if model.path or model.adapter:
        raise ConfigError(
            "a new expert starts from no other model",
            cause="pretrain trains a new expert; jobs/update.py continues the one of update.model",
            setting=f"model.preset = expert, model.path = {model.path!r}, "
            f"model.adapter = {model.adapter!r}",
        )


def _check_workers(training: TrainingSection) -> None:
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


def _warn_of_random_base(model: ModelSection, lora: LoraSection) -> None:
    """Warn if LoRA adapts a model whose frozen weights are random."""
    if lora.rank and not model.path:
        logger.warning(
            "lora.rank = %d adapts a new tiny model, whose frozen weights stay random; set "
            "lora.rank=0 to train all parameters, or model.path to a trained model",
            lora.rank,
        )
