"""The prepare job: configuration in, event store and report out. Runs on the driver."""

import logging

from mmtpp.config.job_checks import check_prepare
from mmtpp.config.schema import ModelSection, RunConfig, SourceSection, SplitSection
from mmtpp.core.errors import ConfigError
from mmtpp.core.split import parse_instant
from mmtpp.data.encode.encode import encode
from mmtpp.data.encode.encode_settings import FILE, SEQUENCE, EncodeSettings
from mmtpp.data.encode.source_listing import missing_source_error
from mmtpp.data.from_config import (
    build_columns,
    build_csv_format,
    build_source_reader,
    build_type_names,
)
from mmtpp.data.prepare_warnings import warn_of_long_events, warn_of_records
from mmtpp.data.sources import READERS, flights, taxi
from mmtpp.data.sources.reader import SourceReader
from mmtpp.data.sources.type_codes import OTHER
from mmtpp.model.folders.folder import load_model_vocabulary
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.paths import check_bucket, exists, split_file

logger = logging.getLogger(__name__)


def prepare(config: RunConfig) -> dict[str, object]:
    """Turn raw files into an event store.

    Args:
        config: The whole configuration.

    Returns:
        The job's report: counts, the store's URI and its fingerprint.

    Raises:
        ConfigError: The settings of source, split and store do not fit each other.
        DataError, StorageError, ModelError: As ``encode`` raises them.
    """
    check_prepare(config)
    source = config.source
    store_uri = config.store.uri
    _check_locations(source, store_uri)
    settings, vocabulary = _encode_settings(
        source, config.split, config.model, image_px=config.template.image_px
    )
    publish_report = _publish(source)
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    report = encode(
        settings,
        store_uri,
        vocabulary=vocabulary,
        max_rejected_fraction=source.max_rejected_fraction,
        max_file_bytes=source.max_file_mib * 2**20,
        max_processes=source.max_processes,
        machine_labels=config.store.machine_labels,
    )
    manifest = report.manifest
    warn_of_records(manifest, source, config.split)
    num_too_long = warn_of_long_events(config.sample_sections, manifest)
    return {
        **publish_report,
        **manifest.counts(),
        "events_reordered": manifest.events_reordered,
        "events_disagreeing": manifest.events_disagreeing,
        "events_folded": manifest.events_folded,
        "characters_replaced": manifest.characters_replaced,
        "sequences_joined": manifest.sequences_joined,
        "left_out_by_kind": manifest.left_out_by_kind,
        "files_not_read": report.files_not_read,
        "type_names": manifest.type_names,
        "sequences": manifest.sequences,
        "sequences_by_split": manifest.sequences_by_split,
        "events_by_split": manifest.events_by_split,
        "events_too_long": num_too_long,
        "tick_s": manifest.tick_s,
        "frames": manifest.frames,
        "store_uri": store_uri,
        "fingerprint": manifest.fingerprint,
        "reused": report.reused,
        "shards_copied": report.shards_copied,
    }


def _check_locations(source: SourceSection, store_uri: str) -> None:
    """Check that source and store can be reached, and that raw files of the user exist."""
    for uri in (source.uri, store_uri):
        check_bucket(uri)
    reader = READERS.get(source.kind)
    if not (reader and reader.is_published_here) and not exists(source.uri):
        raise missing_source_error(source.uri)


def _encode_settings(
    source: SourceSection, split: SplitSection, model: ModelSection, *, image_px: int
) -> tuple[EncodeSettings, Vocabulary | None]:
    """The settings of the store, and the vocabulary of the model; None trains a tokenizer."""
    reader = build_source_reader(source)
    names, finds_types = build_type_names(source, reader)
    seconds_per_unit = reader.seconds_per_unit or source.seconds_per_unit
    validation_from, test_from = _instants(split, seconds_per_unit)
    folder, file = split_file(source.uri)
    vocabulary = load_model_vocabulary(model.path) if model.path else None
    settings = EncodeSettings(
        source_kind=source.kind,
        source_uri=folder,
        source_file=file,
        type_names=names,
        finds_types=finds_types,
        folds_rare=source.rare_types == OTHER and bool(names or finds_types),
        columns=build_columns(source) if source.kind in ("columns", "xes") else None,
        csv=build_csv_format(source),
        seconds_per_unit=seconds_per_unit,
        image_px=image_px,
        max_image_pixels=source.max_image_pixels,
        max_image_bytes=source.max_image_mib * 2**20,
        malformed_file=source.malformed_file,
        validation_fraction=split.validation_fraction,
        test_fraction=split.test_fraction,
        tokenizer_size=0 if vocabulary else model.tokenizer_size,
        split_by=split.by,
        partitioning=_partitioning(source, reader),
        image_roots=source.image_roots,
        validation_from=validation_from,
        test_from=test_from,
    )
    return settings, vocabulary


def _partitioning(source: SourceSection, reader: SourceReader) -> str:
    """Where the events of a sequence are; ``file`` where no record names its sequence.

    Raises:
        ConfigError: The events of a sequence are to be joined, but no record names its sequence.
    """
    if reader.names_sequences:
        return source.partitioning
    if source.partitioning == SEQUENCE:
        raise ConfigError(
            f"source.partitioning = sequence, but files of source.kind = {source.kind} do not name "
            "the sequences of their events",
            cause="only columns with source.columns.sequence and xes do"
            if source.kind == "columns"
            else "only columns and xes do; a file of this kind is whole sequences",
        )
    return FILE


def _instants(split: SplitSection, seconds_per_unit: float) -> tuple[float | None, float | None]:
    """The instants of ``split`` in the source's unit.

    Raises:
        ConfigError: The settings of the split do not fit each other.
    """
    validation, test = (
        parse_instant(text, seconds_per_unit=seconds_per_unit)
        for text in (split.validation_from, split.test_from)
    )
    if validation is not None and test is not None and validation > test:
        raise ConfigError(
            f"split.validation_from = {split.validation_from} is after split.test_from = "
            f"{split.test_from}: validation comes before the test"
        )
    return validation, test


def _publish(source: SourceSection) -> dict[str, object]:
    """Write the raw files of a source that is built from other data.

    Returns:
        Counts for the report of the job.
    """
    if source.kind == "flights" and flights.publish(source.uri, sequence=source.flights.sequence):
        logger.info("published the demo's raw events and images to %s", source.uri)
    if source.kind == "taxi":
        published = taxi.publish(
            source.uri,
            trips_uri=source.taxi.trips,
            zones_uri=source.taxi.zones,
            sequence=source.taxi.sequence,
        )
        if not published.was_there:
            logger.info(
                "published %d taxi events to %s; left out, see excluded.jsonl there: %s",
                published.num_events,
                source.uri,
                published.excluded_by_cause,
            )
            return {"excluded_by_cause": published.excluded_by_cause}
    return {}
