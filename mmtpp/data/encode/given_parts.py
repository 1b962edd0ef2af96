"""Parts as given: which of training, validation and test a file or a record is for."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from mmtpp.core.errors import DataError
from mmtpp.core.events import EventSequence
from mmtpp.core.split import SPLITS, split_from_path
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.reader import ParsedFile
from mmtpp.data.sources.tables import suffix_of

logger = logging.getLogger(__name__)

_SHOWN = 3  # files of each part that a message names


def given_parts(
    path: str, parsed: ParsedFile, *, where: str
) -> tuple[list[EventSequence], list[str]]:
    """The sequences of a file with the parts they are given for.

    A part begins the names of its sequences, because ids often count from 0 in each part.

    Args:
        path: relative to the source.
        parsed: what the file holds.
        where: the source, for messages.

    Returns:
        S sequences under their new names, and S parts.

    Raises:
        DataError: neither the records nor the names of file and folders say the part.
    """
    parts = [part or split_from_path(path) for part in parsed.part_of_each()]
    if not all(parts):
        raise no_part(path, where=where)
    named = [
        replace(sequence, sequence_id=f"{part}/{sequence.sequence_id}")
        for part, sequence in zip(parts, parsed.sequences, strict=True)
    ]
    return named, parts


def no_part(path: str, *, where: str) -> DataError:
    """The error of a file whose part is not known."""
    return DataError(
        f"{path}: the part it belongs to is not known",
        where=where,
        cause="no name of the file or of its folders is train, dev, validation, test or the like, "
        "or two of them disagree",
        setting="split.by = given; rename the file, name a column in source.columns.split, or set "
        "split.by = hash",
    )


def check_parts(settings: EncodeSettings, paths: Sequence[str]) -> None:
    """Check event files before they are read; warn where parts as given are not used.

    Args:
        settings: of ``encode``.
        paths: event files relative to the source.

    Raises:
        DataError: parts are wanted as given, and a file does not say its part.
    """
    if _holds_out(settings) and (warning := looks_given(paths, by=settings.split_by)):
        logger.warning("%s", warning)
    in_records = settings.columns is not None and settings.columns.split
    if settings.split_by == "given" and not in_records:
        for path in paths:
            # pickles of EasyTPP may hold all parts
            if suffix_of(path) != ".pkl" and not split_from_path(path):
                raise no_part(path, where=settings.source_uri)


def looks_given(paths: Iterable[str], *, by: str) -> str:
    """A warning where files look like parts as given and are not used so; empty where not.

    Args:
        paths: event files relative to the source.
        by: the setting ``split.by``.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        if part := split_from_path(path):
            found.setdefault(part, []).append(path)
    if by == "given" or len(found) < 2:
        return ""
    return _warning([(part, found[part]) for part in SPLITS if part in found], by)


def check_keys(settings: EncodeSettings, parts: Counter[str]) -> None:
    """Warn where records say their parts, as EasyTPP's pickles do, and the parts are not used.

    Args:
        settings: of ``encode``.
        parts: sequences of each part, as the records say.
    """
    if settings.split_by == "given" or len(parts) < 2 or not _holds_out(settings):
        return
    named = [(part, [f"{parts[part]:,} sequences"]) for part in SPLITS if parts[part]]
    logger.warning("%s", _warning(named, settings.split_by))


def _holds_out(settings: EncodeSettings) -> bool:
    """Whether some events are held out; nothing is mixed where none are."""
    return settings.split_by != "hash" or bool(
        settings.validation_fraction or settings.test_fraction
    )


def _warning(named: Sequence[tuple[str, list[str]]], by: str) -> str:
    listed = "; ".join(
        f"{part}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for part, names in named
    )
    does = {
        "hash": "mixes them: sequences given for the test train the model",
        "time": "cuts each of their sequences in time",
    }
    return (
        f"the source has parts as given ({listed}), and split.by = {by} {does[by]}; set "
        "split.by = given to keep the parts"
    )
