"""Given splits: files or records that name the split they belong to."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mmtpp.core.errors import DataError
from mmtpp.core.events import EventSequence
from mmtpp.core.split import SPLITS, split_from_path
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.event_files import suffix_of
from mmtpp.data.sources.reader import ParsedFile

logger = logging.getLogger(__name__)

_SHOWN = 3  # files of each split that a message names


def assign_given_splits(
    path: str, parsed: ParsedFile, *, where: str
) -> tuple[list[EventSequence], list[str]]:
    """The sequences of a file with the splits that the records or the path name.

    The split becomes the beginning of each sequence id, because ids often count from 0 in each
    split.

    Args:
        path: Path of the file, relative to the source.
        parsed: Content of the file.
        where: Location of the source, for messages.

    Returns:
        S sequences under their new ids, and S splits.

    Raises:
        DataError: Neither the records nor the names of file and folders give the split.
    """
    splits = [split or split_from_path(path) for split in parsed.split_by_sequence()]
    if not all(splits):
        raise _unknown_split_error(path, where=where)
    sequences = [
        replace(sequence, sequence_id=f"{split}/{sequence.sequence_id}")
        for split, sequence in zip(splits, parsed.sequences, strict=True)
    ]
    return sequences, splits


def _unknown_split_error(path: str, *, where: str) -> DataError:
    """The error of a file whose split is not known."""
    return DataError(
        f"{path}: the split of the file is unknown",
        where=where,
        cause="neither the file nor its folders are named train, dev, validation, test or "
        "similar, or two of these names disagree",
        setting="split.by = given; rename the file, name a column in source.columns.split, or set "
        "split.by = hash",
    )


def check_given_splits(settings: EncodeSettings, paths: Sequence[str]) -> None:
    """Check the names of event files before reading, and warn of given splits that are not used.

    Args:
        settings: Settings of ``encode``.
        paths: Event files, relative to the source.

    Raises:
        DataError: ``split.by = given``, and a file does not name its split.
    """
    if _holds_out(settings) and (warning := unused_splits_warning(paths, by=settings.split_by)):
        logger.warning("%s", warning)
    in_records = settings.columns is not None and settings.columns.split
    if settings.split_by == "given" and not in_records:
        for path in paths:
            # an EasyTPP pickle may hold all splits
            if suffix_of(path) != ".pkl" and not split_from_path(path):
                raise _unknown_split_error(path, where=settings.source_uri)


def unused_splits_warning(paths: Iterable[str], *, by: str) -> str:
    """A warning where file names give splits that are not used; empty without such files.

    Args:
        paths: Event files, relative to the source.
        by: Value of the setting ``split.by``.
    """
    paths_of_split: dict[str, list[str]] = {}
    for path in paths:
        if split := split_from_path(path):
            paths_of_split.setdefault(split, []).append(path)
    if by == "given" or len(paths_of_split) < 2:
        return ""
    named = [(split, paths_of_split[split]) for split in SPLITS if split in paths_of_split]
    return _warning(named, by)


def warn_unused_splits(settings: EncodeSettings, num_sequences: Counter[str]) -> None:
    """Warn where records name their splits, as EasyTPP's pickles do, and these are not used.

    Args:
        settings: Settings of ``encode``.
        num_sequences: Number of sequences of each split, according to the records.
    """
    if settings.split_by == "given" or len(num_sequences) < 2 or not _holds_out(settings):
        return
    named = [
        (split, [f"{num_sequences[split]:,} sequences"]) for split in SPLITS if num_sequences[split]
    ]
    logger.warning("%s", _warning(named, settings.split_by))


def _holds_out(settings: EncodeSettings) -> bool:
    """Whether some events are held out. Otherwise no splits can be mixed."""
    return settings.split_by != "hash" or bool(
        settings.validation_fraction or settings.test_fraction
    )


def _warning(named: Sequence[tuple[str, list[str]]], by: str) -> str:
    listed = "; ".join(
        f"{split}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for split, names in named
    )
    effect = {
        "hash": "mixes them: sequences of the given test split train the model",
        "time": "cuts each of their sequences in time",
    }
    return (
        f"the source has given splits ({listed}), but split.by = {by} {effect[by]}; set "
        "split.by = given to keep the splits"
    )
