"""Typed settings of readers and samples, from the configuration and a store's manifest."""

import logging
from collections.abc import Sequence

from mmtpp.config.job_checks import check_recent_full, check_soft
from mmtpp.config.schema import (
    SampleSections,
    SourceSection,
    StoreSection,
    TaskWeights,
    TemplateSection,
)
from mmtpp.core.errors import ConfigError
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.supervision import AllTokens, EveryEvent, Supervision
from mmtpp.core.representation.template import TemplateSettings
from mmtpp.core.representation.type_words import MAX_NAME_TOKENS, words_of_types
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.sample_settings import NewTargets, SampleSettings
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.columns import Columns
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.data.sources.type_codes import AUTO, OTHER
from mmtpp.data.store.store_settings import StoreSettings
from mmtpp.model.processor import image_side
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import join

logger = logging.getLogger(__name__)

ALL_TOKENS = AllTokens()


def build_sample_settings(
    sections: SampleSections,
    manifest: Manifest,
    *,
    split: str,
    supervision: Supervision = ALL_TOKENS,
    reads_template: bool = True,
    max_sequences: int = 0,
    new_targets: NewTargets | None = None,
) -> SampleSettings:
    """Settings of a split's samples: packed for training, single windows for scoring.

    Args:
        sections: Sections of the configuration that shape samples.
        manifest: Manifest of the store.
        split: ``train``, ``validation``, ``test`` or ``all``.
        supervision: Which tokens are labels and which questions are asked.
        reads_template: Whether the model reads events as tokens; a temporal expert does not, so the
            calendar and the images of the template do not concern it.
        max_sequences: Number of sequences, in order of their ids; 0 for all.
        new_targets: Which targets are new; older ones are replayed in the training split alone.

    Raises:
        ConfigError: A model that reads the template needs images of another size than the store
            has, or its calendar although the store's times are no dates.
    """
    template, window, evaluation = sections.template, sections.window, sections.evaluation
    if reads_template:
        _check_image_px(template, manifest)
        check_calendar(template, times_are_dates=manifest.times_are_dates, where=sections.store.uri)
        check_soft(sections)
        check_recent_full(sections)
    training = split == "train"
    return SampleSettings(
        store=build_store_settings(sections.store, manifest),
        compression=build_compression(sections),
        template=build_template_settings(
            sections,
            seconds_per_unit=manifest.seconds_per_unit,
            type_words=_type_words(sections, manifest) if reads_template else (),
        ),
        max_tokens=window.max_tokens,
        overlap_fraction=float((window if training else evaluation).overlap_fraction),
        time_from=window.time_from,
        time_to=window.time_to,
        split=split,
        max_sequences=max_sequences,
        targets_delta=0.0 if training else float(evaluation.targets_delta),
        packed=training,
        seed=sections.seed,
        supervision=supervision,
        max_text_tokens=template.max_text_tokens,
        long_events=window.long_events,
        older_tokens=sections.compression.older_tokens(window.max_tokens),
        new_targets=new_targets and new_targets.of_split(split),
    )


def _check_image_px(template: TemplateSection, manifest: Manifest) -> None:
    if manifest.image_px != template.image_px:
        raise ConfigError(
            f"template.image_px = {template.image_px}, but the images of the store have "
            f"{manifest.image_px} pixels; prepare the store again or change the setting"
        )


def build_training_questions(tasks: TaskWeights) -> EveryEvent:
    """The questions that stage 2 trains on.

    Args:
        tasks: Weights of the tasks.
    """
    return EveryEvent(tasks.asked, labels_history=tasks.history > 0)


def build_store_settings(store: StoreSection, manifest: Manifest) -> StoreSettings:
    """Location, image size and cache of the store that a manifest describes."""
    return StoreSettings(
        data_uri=join(store.uri, manifest.data_folder),
        fingerprint=manifest.fingerprint,
        image_px=manifest.image_px,
        cache_bytes=int(store.cache_gib * 2**30) or None,
        cache_path=store.cache_path or None,
        machine_labels=tuple(sorted(store.machine_labels.items())),
        tick=manifest.tick,
    )


def build_columns(source: SourceSection) -> Columns:
    """The mapping of a table's columns."""
    return Columns(**source.columns.model_dump())


def build_source_reader(source: SourceSection) -> SourceReader:
    """The reader of a source.

    Raises:
        ConfigError: ``source.kind = columns`` has no column of times.
    """
    return build_reader(
        source.kind,
        columns=build_columns(source),
        seconds_per_unit=source.seconds_per_unit,
        csv=build_csv_format(source),
    )


def build_csv_format(source: SourceSection) -> CsvFormat:
    """The format of CSV files."""
    return CsvFormat(**source.csv.model_dump())


def build_type_names(source: SourceSection, reader: SourceReader) -> tuple[tuple[str, ...], bool]:
    """Names of the types by code, and whether the files still have to be searched for them.

    Raises:
        ConfigError: The source has fixed types, and ``source.types`` names other ones.
    """
    if reader.type_names and source.types:
        raise ConfigError(f"source.types: sources of kind {source.kind} name their own types")
    if source.types == AUTO:
        return (), True
    names = reader.type_names or tuple(source.types)
    if names and source.rare_types == OTHER and OTHER not in names:
        names = (*names, OTHER)
    return names, False


def build_compression(sections: SampleSections) -> Compression:
    """The rule that marks similar events."""
    settings = sections.compression
    return Compression(
        strategy=settings.strategy,
        delta=float(settings.delta),
        min_text_similarity=float(settings.min_text_similarity),
        drop_fraction=float(settings.drop_fraction),
        seed=sections.seed,
    )


def check_calendar(template: TemplateSection, *, times_are_dates: bool, where: str) -> None:
    """Check that the times of events have a calendar if the template writes it.

    Args:
        template: Section ``template`` of the settings.
        times_are_dates: Whether the times count from 1970-01-01T00:00:00 UTC.
        where: Location of the events, for the error.

    Raises:
        ConfigError: The template has a calendar, but the times are numbers.
    """
    if template.calendar != "none" and not times_are_dates:
        raise ConfigError(
            "the calendar needs times that are dates; these times are numbers",
            where=where,
            cause="only source.kind = columns or xes reads dates, from source.columns.time",
            setting=f"template.calendar = {template.calendar}",
        )


def _type_words(sections: SampleSections, manifest: Manifest) -> tuple[tuple[int, ...], ...]:
    """The names of a store's types as the template writes them."""
    if sections.template.types != "words":
        return ()
    uri, names = sections.store.uri, manifest.type_names
    words = write_type_names(names, store_vocabulary(uri, manifest), where=uri)
    if unnamed := [code for code in manifest.occurring_types if code >= len(names)]:
        raise ConfigError(
            f"the template writes the names of types, but the types {unnamed} have none",
            where=uri,
            cause="some types of the events are numbers that source.types does not name",
            setting="template.types = words",
        )
    return words


def write_type_names(
    names: Sequence[str], vocabulary: Vocabulary, *, where: str
) -> tuple[tuple[int, ...], ...]:
    """The names of types as tokens, for ``template.types = words``.

    Args:
        names: Names by code.
        vocabulary: Vocabulary of the model.
        where: Location of the events, for the error.

    Raises:
        ConfigError: The types have no names.
    """
    if not names:
        raise ConfigError(
            "the template writes the names of types, but these types have none",
            where=where,
            cause="types are numbers where source.types is empty and the events name none",
            setting="template.types = words",
        )
    words = words_of_types(vocabulary.encode_texts(names), vocabulary.token_ids().blank[-1])
    if alike := len(words) - len(set(words)):
        logger.warning(
            "%s: %d of %d types have the same first %d tokens as others, so only their codes "
            "differ (template.types = words)",
            where,
            alike,
            len(words),
            MAX_NAME_TOKENS,
        )
    return words


def build_template_settings(
    sections: SampleSections,
    *,
    seconds_per_unit: float,
    type_words: tuple[tuple[int, ...], ...] = (),
) -> TemplateSettings:
    """The template of an event.

    Args:
        sections: Sections of the configuration that shape samples.
        seconds_per_unit: Seconds in one unit of the times.
        type_words: Result of ``write_type_names`` if ``template.types = words``.
    """
    settings = sections.template
    return TemplateSettings(
        style=settings.style,
        images=settings.images,
        image_tokens=count_image_tokens(settings.image_px),
        time_bytes=settings.time_bytes,
        run_encoding=sections.compression.run_encoding,
        calendar=settings.calendar,
        time_zone=settings.time_zone,
        seconds_per_unit=seconds_per_unit,
        type_words=type_words,
    )


def count_image_tokens(image_px: int) -> int:
    """Number of the language model's tokens for a square image.

    Args:
        image_px: Side of the image, in pixels.
    """
    return image_side(image_px) ** 2
