"""Warnings of the prepare job about records, splits and events that do not fit a context."""

import logging

from mmtpp.config.schema import SampleSections, SourceSection, SplitSection
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.long_events import find_long_events
from mmtpp.storage.manifest import Manifest

logger = logging.getLogger(__name__)


def warn_of_records(manifest: Manifest, source: SourceSection, split: SplitSection) -> None:
    """Warn of records that are no events, of empty splits and of times without a tick.

    Args:
        manifest: Manifest of the prepared store.
        source: Section ``source`` of the settings.
        split: Section ``split`` of the settings.
    """
    if manifest.left_out_by_kind:
        logger.warning(
            "%s: records that are no events of source.kind = %s are left out: %s",
            source.uri,
            source.kind,
            manifest.left_out_by_kind,
        )
    if manifest.characters_replaced:
        logger.warning(
            "%s: %s characters of the texts have no token in the vocabulary of model.path and were "
            "replaced by U+FFFD",
            source.uri,
            f"{manifest.characters_replaced:,}",
        )
    _warn_of_empty_splits(manifest, source.uri, split)
    if not manifest.tick_s and manifest.events_simultaneous:
        logger.warning(
            "the times of %s have no tick: they are continuous, or too few to show one; so %d "
            "simultaneous events have a probability and no density, and time/nll_nats_per_event "
            "is that of the other events",
            source.uri,
            manifest.events_simultaneous,
        )


def warn_of_long_events(sections: SampleSections, manifest: Manifest) -> int:
    """Warn of events that do not fit ``window.max_tokens``; returns their number.

    The store keeps their texts whole: later jobs shorten them by their own settings.

    Args:
        sections: Sections of the configuration that shape samples.
        manifest: Manifest of the prepared store.
    """
    sample_settings = build_sample_settings(sections, manifest, split="all")
    long_events = find_long_events(
        sample_settings, store_vocabulary(sections.store.uri, manifest).token_ids()
    )
    if long_events.count:
        logger.warning(
            "events that do not fit window.max_tokens = %d: %s (%s); the store keeps them whole, "
            "later jobs shorten their texts unless window.long_events = fail; raise "
            "window.max_tokens, or set template.max_text_tokens, now %d",
            sample_settings.max_tokens,
            f"{long_events.count:,}",
            "; ".join(long_events.examples),
            sample_settings.max_text_tokens,
        )
    return long_events.count


def _warn_of_empty_splits(manifest: Manifest, source_uri: str, split: SplitSection) -> None:
    """Warn of splits without an event."""
    for name in ("validation", "test"):
        if not manifest.events_by_split[name] and (advice := _advice(split, name)):
            logger.warning("no sequence of %s fell into the %s split: %s", source_uri, name, advice)
    if not manifest.events_by_split["train"]:
        logger.warning(
            "no event of %s is left for training: %s", source_uri, _advice(split, "train")
        )


def _advice(split: SplitSection, part: str) -> str:
    """Why a split is empty and what to set; empty where the settings ask for no such split."""
    if split.by == "given":
        return f"no file is given for {part}, by split.by = given"
    if part == "train":
        return (
            f"lower split.validation_fraction = {split.validation_fraction:g} and "
            f"split.test_fraction = {split.test_fraction:g}, or set later instants in "
            "split.validation_from and split.test_from"
        )
    fraction = getattr(split, f"{part}_fraction")
    if split.by == "time":
        start = getattr(split, f"{part}_from")
        if start:
            return f"no event is at or after split.{part}_from = {start}"
        return f"raise split.{part}_fraction = {fraction:g}" if fraction else ""
    return (
        f"sequences fall into it by a hash of their names; raise split.{part}_fraction = "
        f"{fraction:g}, or, where the sequences are few and long, set split.by = time to cut "
        "every one in time"
        if fraction
        else ""
    )
