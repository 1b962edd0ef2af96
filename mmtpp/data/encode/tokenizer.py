"""The vocabulary of a store where no base model brings one: a tokenizer trained on its texts."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.tables import MalformedFileError
from mmtpp.data.sources.types import OTHER, TypeCodes
from mmtpp.model.vocabulary import TOKENIZER_FILE, Vocabulary, train_tokenizer
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import ahead, join, read_bytes

logger = logging.getLogger(__name__)

TOKENIZER_SAMPLE_FILES = 200
TOKENIZER_SAMPLE_BYTES = 64 * 2**20
READS_IN_FLIGHT = 16


def own_vocabulary(
    settings: EncodeSettings,
    store_uri: str,
    existing: Manifest | None,
    files: Sequence[tuple[str, int]],
) -> Vocabulary:
    """The vocabulary of the store there, so that more events may follow; else a trained one."""
    if existing and existing.tokenizer_size == settings.tokenizer_size:
        uri = join(store_uri, existing.data_folder, TOKENIZER_FILE)
        return Vocabulary(read_bytes(uri).decode())
    return Vocabulary(_train_tokenizer(settings, files))


def _train_tokenizer(settings: EncodeSettings, files: Sequence[tuple[str, int]]) -> str:
    """Train on the texts of files spread evenly over the source."""
    reader, types = settings.reader(), settings.types()
    if settings.finds_types:  # not found yet: texts are wanted, whatever their type
        types = TypeCodes((OTHER,), folds_rare=True)
    step = max(1, len(files) // TOKENIZER_SAMPLE_FILES)
    sample: list[str] = []
    size = 0
    for path, num_bytes in files[::step][:TOKENIZER_SAMPLE_FILES]:
        if size + num_bytes <= TOKENIZER_SAMPLE_BYTES:
            sample.append(path)
            size += num_bytes
    if not sample:
        sample.append(min(files, key=lambda file: file[1])[0])
    uris = [join(settings.source_uri, path) for path in sample]
    texts: list[str] = []
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        contents = ahead(pool, read_bytes, uris, depth=READS_IN_FLIGHT)
        for path, content in zip(sample, contents, strict=True):
            try:
                parsed = read_file(reader, path, content, types=types)
            except MalformedFileError:
                continue  # reported when its shard is read
            texts += [text for sequence in parsed.sequences for text in sequence.texts]
    logger.info(
        "training a tokenizer of %d entries on %d texts", settings.tokenizer_size, len(texts)
    )
    return train_tokenizer(texts, size=settings.tokenizer_size)
