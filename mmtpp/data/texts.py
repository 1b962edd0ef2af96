"""Texts to token ids, each distinct text once."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.model.vocabulary import Vocabulary

MAX_REMEMBERED = 2**18  # texts a process keeps the ids of: some 60 MB


class TextTokeniser:
    """Tokenises columns of texts and remembers the distinct ones.

    Args:
        vocabulary: to tokenise with.
        max_remembered: texts whose ids are kept for the next column; when there would be more,
            all are forgotten.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_remembered: int = MAX_REMEMBERED) -> None:
        self._vocabulary = vocabulary
        self._max_remembered = max_remembered
        self._ids: dict[str, bytes] = {}

    def __call__(self, texts: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokenise E texts.

        Returns:
            The ids of all texts one after the other, and (E,) how many each has.
        """
        encoded = texts.dictionary_encode()
        distinct: list[str] = encoded.dictionary.to_pylist()
        self._learn(distinct)
        parts = [self._ids[text] for text in distinct]
        place = encoded.indices.to_numpy(zero_copy_only=False)
        sizes = np.array([len(part) // 4 for part in parts], dtype=np.int64)
        ids = np.frombuffer(b"".join(parts), dtype=np.int32)
        starts, lengths = (np.cumsum(sizes) - sizes)[place], sizes[place]
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return ids[np.repeat(starts, lengths) + within], lengths.astype(np.int32)

    def _learn(self, distinct: list[str]) -> None:
        unknown = [text for text in distinct if text not in self._ids]
        if len(self._ids) + len(unknown) > self._max_remembered:
            self._ids.clear()
            unknown = distinct
        for text, ids in zip(unknown, self._vocabulary.encode_texts(unknown), strict=True):
            self._ids[text] = np.array(ids, dtype=np.int32).tobytes()
