"""Vocabulary of a store without a base model: a tokenizer trained on the texts of its source."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.event_files import MalformedFileError
from mmtpp.data.sources.type_codes import OTHER, TypeCodes
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE, Vocabulary, train_tokenizer
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import READS_IN_FLIGHT, join, prefetch, read_bytes

logger = logging.getLogger(__name__)

TOKENIZER_SAMPLE_FILES = 200
TOKENIZER_SAMPLE_BYTES = 64 * 2**20


def load_or_train_vocabulary(
    settings: EncodeSettings,
    store_uri: str,
    existing: Manifest | None,
    files: Sequence[tuple[str, int]],
) -> Vocabulary:
    """Load the vocabulary of the existing store, so that events can be added; else train one.

    Args:
        settings: Settings of ``encode``.
        store_uri: Location of the store.
        existing: Manifest of the existing store; None without a store.
        files: Paths and sizes in bytes of the event files.
    """
    if existing and existing.tokenizer_size == settings.tokenizer_size:
        uri = join(store_uri, existing.data_folder, TOKENIZER_FILE)
        return Vocabulary(read_bytes(uri).decode())
    return Vocabulary(_train_tokenizer(settings, files))


def _train_tokenizer(settings: EncodeSettings, files: Sequence[tuple[str, int]]) -> str:
    """Train a tokenizer on the texts of some files, evenly spread over the source."""
    reader, types = settings.build_reader(), settings.build_type_codes()
    if settings.finds_types:  # the names are not known yet: accept the texts of every type
        types = TypeCodes((OTHER,), folds_rare=True)
    paths = _sample_files(files)
    uris = [join(settings.source_uri, path) for path in paths]
    texts: list[str] = []
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        contents = prefetch(pool, read_bytes, uris, depth=READS_IN_FLIGHT)
        for path, content in zip(paths, contents, strict=True):
            try:
                parsed = read_file(reader, path, content, types=types)
            except MalformedFileError:
                continue  # reported by the first step
            texts += [text for sequence in parsed.sequences for text in sequence.texts]
    logger.info(
        "training a tokenizer of %d entries on %d texts", settings.tokenizer_size, len(texts)
    )
    return train_tokenizer(texts, size=settings.tokenizer_size)


def _sample_files(files: Sequence[tuple[str, int]]) -> list[str]:
    """Paths of evenly spread files up to the sample size; at least the smallest file."""
    step = max(1, len(files) // TOKENIZER_SAMPLE_FILES)
    sample: list[str] = []
    size = 0
    for path, num_bytes in files[::step][:TOKENIZER_SAMPLE_FILES]:
        if size + num_bytes <= TOKENIZER_SAMPLE_BYTES:
            sample.append(path)
            size += num_bytes
    return sample or [min(files, key=lambda file: file[1])[0]]
