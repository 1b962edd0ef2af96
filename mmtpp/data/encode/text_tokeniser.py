"""Tokenise texts; each distinct text is tokenised once."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.model.tokens.vocabulary import Vocabulary

CACHED_BYTES = 64 * 2**20  # texts and their ids that a process keeps
_ENTRY_BYTES = 200  # memory of a cached text and its ids, besides their content


class TextTokeniser:
    """Tokenises columns of texts and caches the ids of distinct texts.

    Args:
        vocabulary: Vocabulary to tokenise with.
        cached_bytes: Size of the cache. A fuller cache is emptied before the next column.

    Attributes:
        num_replaced: Number of characters so far that the vocabulary cannot write, in all texts.
    """

    def __init__(self, vocabulary: Vocabulary, *, cached_bytes: int = CACHED_BYTES) -> None:
        self._vocabulary = vocabulary
        self.num_replaced = 0
        self._max_bytes = cached_bytes
        self._num_bytes = 0
        self._ids: dict[str, bytes] = {}

    def __call__(self, texts: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokenise E texts.

        Returns:
            The ids of all texts, one text after the other, and (E,) the number of ids of each text.
        """
        encoded = texts.dictionary_encode()
        distinct: list[str] = encoded.dictionary.to_pylist()
        self._cache(distinct)
        parts = [self._ids[text] for text in distinct]
        place = encoded.indices.to_numpy(zero_copy_only=False)
        self.num_replaced += self._count_replaced(distinct, place)
        sizes = np.array([len(part) // 4 for part in parts], dtype=np.int64)
        ids = np.frombuffer(b"".join(parts), dtype=np.int32)
        starts, lengths = (np.cumsum(sizes) - sizes)[place], sizes[place]
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return ids[np.repeat(starts, lengths) + within], lengths.astype(np.int32)

    def _count_replaced(self, distinct: list[str], place: NDArray[np.int32]) -> int:
        """Number of unwritable characters of all texts; ``place`` is the text of each event."""
        if self._vocabulary.writes_all_characters:
            return 0
        replaced = np.array([self._vocabulary.num_unwritable(text) for text in distinct], np.int64)
        return int(replaced[place].sum())

    def _cache(self, distinct: list[str]) -> None:
        if self._num_bytes > self._max_bytes:
            self._ids.clear()
            self._num_bytes = 0
        unknown = [text for text in distinct if text not in self._ids]
        for text, ids in zip(unknown, self._vocabulary.encode_texts(unknown), strict=True):
            self._ids[text] = np.array(ids, dtype=np.int32).tobytes()
            self._num_bytes += 2 * len(text) + 4 * len(ids) + _ENTRY_BYTES
