"""The sequences of one shard as flat columns: build, filter, hash, write and read them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.core.events import EventSequence
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.store.layout import (
    CUT_COLUMNS,
    DICTIONARY_COLUMNS,
    DIGEST_BYTES,
    GROUP_EVENTS,
    PART_EVENTS,
    QUESTION_COLUMNS,
    SEQUENCE_SCHEMA,
)
from mmtpp.data.store.questions import AskedQuestion, read_questions
from mmtpp.storage.parquet import list_offsets, list_values, read_table, write_groups

FloatArray = NDArray[np.float64]
_NO_IMAGE = bytes(DIGEST_BYTES)  # digest of an event without an image


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a sequence: one row of the stored table.

    Attributes:
        sequence: Number of the sequence in the shard.
        part: Number of the part in its sequence.
        start: First event of the part, counted over the shard.
        end: Event after the last one.
    """

    sequence: int
    part: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ShardColumns:
    """S sequences with E events and X text tokens in total.

    Attributes:
        paths: File of each sequence.
        sequence_ids: Id of each sequence.
        splits: Split of each sequence; ``time`` for sequences that are cut in time.
        cuts: (S, 2) times at which validation and test begin; NaN for sequences that are not cut.
        lengths: (S,) number of events of each sequence.
        times: (E,) float64 times.
        types: (E,) int16 type codes.
        texts: Text of each event.
        text_ids: (X,) int32 token ids of all texts, one text after the other.
        text_lengths: (E,) int32 number of tokens of each text.
        frame: (E,) int32 number of the image; -1 without an image.
        questions: Questions about each sequence.
    """

    paths: list[str]
    sequence_ids: list[str]
    splits: list[str]
    cuts: FloatArray
    lengths: NDArray[np.int64]
    times: NDArray[np.float64]
    types: NDArray[np.int16]
    texts: pa.StringArray
    text_ids: NDArray[np.int32]
    text_lengths: NDArray[np.int32]
    frame: NDArray[np.int32]
    questions: list[tuple[AskedQuestion, ...]]

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[EventSequence],
        *,
        paths: list[str],
        splits: list[str],
        tokenise: TextTokeniser,
        cuts: FloatArray | None = None,
    ) -> tuple["ShardColumns", list[str]]:
        """Build the columns of S sequences.

        Args:
            sequences: Sequences of the shard.
            paths: File of each sequence.
            splits: Split of each sequence, or ``time``.
            tokenise: Tokeniser of texts and questions.
            cuts: (S, 2) times at which validation and test begin; None if sequences are not cut.

        Returns:
            The columns, and the distinct image paths. ``frame`` is a position in these paths.
        """
        images = pa.array(
            [image for sequence in sequences for image in sequence.images], pa.string()
        )
        encoded = images.dictionary_encode()
        frame = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        texts = pa.array([text for sequence in sequences for text in sequence.texts], pa.string())
        text_ids, text_lengths = tokenise(texts)
        columns = cls(
            paths=paths,
            sequence_ids=[sequence.sequence_id for sequence in sequences],
            splits=splits,
            cuts=np.full((len(sequences), 2), np.nan) if cuts is None else cuts,
            lengths=np.array([len(sequence) for sequence in sequences], dtype=np.int64),
            times=_concatenated([sequence.times for sequence in sequences], np.float64),
            types=_concatenated([sequence.types for sequence in sequences], np.int16),
            texts=texts,
            text_ids=text_ids,
            text_lengths=text_lengths,
            frame=frame,
            questions=_tokenise_questions([sequence.questions for sequence in sequences], tokenise),
        )
        return columns, encoded.dictionary.to_pylist()

    @property
    def starts(self) -> NDArray[np.int64]:
        """(S,) index of each sequence's first event."""
        return np.cumsum(self.lengths) - self.lengths

    def keep(self, events: NDArray[np.bool_]) -> "ShardColumns":
        """Keep only these events, and only the sequences with at least one of them.

        Args:
            events: (E,) True for the events to keep.
        """
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        lengths = np.bincount(owner[events], minlength=len(self.lengths))
        kept = np.flatnonzero(lengths)
        return replace(
            self,
            paths=[self.paths[index] for index in kept],
            sequence_ids=[self.sequence_ids[index] for index in kept],
            splits=[self.splits[index] for index in kept],
            cuts=self.cuts[kept],
            lengths=lengths[kept],
            times=self.times[events],
            types=self.types[events],
            texts=self.texts.filter(pa.array(events)),
            text_ids=self.text_ids[np.repeat(events, self.text_lengths)],
            text_lengths=self.text_lengths[events],
            frame=self.frame[events],
            questions=[self.questions[index] for index in kept],
        )

    def digests(self, frame_digests: dict[int, bytes]) -> list[str]:
        """Content hash of each sequence, independent of the shard that holds it.

        Args:
            frame_digests: Hash of the image for each value of ``frame``.
        """
        tokens = np.append(0, np.cumsum(self.text_lengths, dtype=np.int64))
        byte_edges, text = _text_bytes(self.texts)
        digests = []
        for index, start in enumerate(self.starts.tolist()):
            end = start + int(self.lengths[index])
            images = [
                frame_digests.get(value, _NO_IMAGE) for value in self.frame[start:end].tolist()
            ]
            digest = hashlib.sha256()
            cuts = () if np.isnan(self.cuts[index]).all() else tuple(self.cuts[index].tolist())
            for part in (
                repr((self.sequence_ids[index], self.splits[index], end - start, *cuts)).encode(),
                repr(tuple(question[:2] for question in self.questions[index])).encode(),
                self.times[start:end].tobytes(),
                self.types[start:end].tobytes(),
                self.text_lengths[start:end].tobytes(),
                self.text_ids[tokens[start] : tokens[end]].tobytes(),
                text[int(byte_edges[start]) : int(byte_edges[end])],
                b"".join(images),
            ):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
            digests.append(digest.hexdigest())
        return digests

    def write(self, uri: str) -> None:
        """Write the sequences in the format of the store, see ``data.store.layout``."""
        token_starts = np.append(0, np.cumsum(self.text_lengths, dtype=np.int64))
        tables = (self._table(parts, token_starts) for parts in self._groups())
        write_groups(uri, tables, SEQUENCE_SCHEMA, dictionaries=DICTIONARY_COLUMNS)

    @classmethod
    def read(cls, uri: str, *, paths: list[str]) -> "ShardColumns":
        """Read the sequences that ``write`` wrote.

        Args:
            uri: Location of the written file.
            paths: File of each sequence, which the written file does not contain.
        """
        table = read_table(uri).combine_chunks()
        first = table["part"].to_numpy() == 0
        sequence = np.cumsum(first) - 1
        events = np.diff(list_offsets(table, "times"))
        whole = table.filter(pa.array(first))
        return cls(
            paths=paths,
            sequence_ids=whole["sequence_id"].to_pylist(),
            splits=whole["split"].to_pylist(),
            cuts=np.stack([whole[name].to_numpy() for name in CUT_COLUMNS], axis=1),
            lengths=np.bincount(sequence, weights=events).astype(np.int64),
            times=list_values(table, "times"),
            types=list_values(table, "types"),
            texts=table["texts"].combine_chunks().flatten(),
            text_ids=list_values(table, "text_ids"),
            text_lengths=list_values(table, "text_lengths"),
            frame=list_values(table, "frame"),
            questions=read_questions(whole),
        )

    def _groups(self) -> list[list[_Part]]:
        """The row groups: several whole sequences, or one part of a long sequence."""
        groups: list[list[_Part]] = []
        room = 0
        for index, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
            cuts = [*range(int(start), int(start + length), PART_EVENTS), int(start + length)]
            parts = [_Part(index, part, *edges) for part, edges in enumerate(pairwise(cuts))]
            if len(parts) == 1 and length <= room:
                groups[-1] += parts
                room -= int(length)
            else:
                groups += [[part] for part in parts]
                room = GROUP_EVENTS - int(length)  # negative after a long sequence
        return groups

    def _table(self, parts: list[_Part], token_starts: NDArray[np.int64]) -> pa.Table:
        """Consecutive parts as rows of ``SEQUENCE_SCHEMA``."""
        start, end = parts[0].start, parts[-1].end
        edges = np.array([*(part.start for part in parts), end])
        offsets, token_edges = edges - start, token_starts[edges]
        questions = [self.questions[part.sequence] if part.part == 0 else () for part in parts]
        columns = {
            "sequence_id": [self.sequence_ids[part.sequence] for part in parts],
            "split": [self.splits[part.sequence] for part in parts],
            **{
                name: [float(self.cuts[part.sequence, place]) for part in parts]
                for place, name in enumerate(CUT_COLUMNS)
            },
            "part": [part.part for part in parts],
            "times": _lists(offsets, self.times[start:end]),
            "types": _lists(offsets, self.types[start:end]),
            "texts": _lists(offsets, self.texts[start:end]),
            "text_ids": _lists(
                token_edges - token_edges[0], self.text_ids[token_edges[0] : token_edges[-1]]
            ),
            "text_lengths": _lists(offsets, self.text_lengths[start:end]),
            "frame": _lists(offsets, self.frame[start:end]),
        }
        for place, name in enumerate(QUESTION_COLUMNS):
            columns[name] = [[question[place] for question in asked] for asked in questions]
        return pa.table(columns, schema=SEQUENCE_SCHEMA)


def _tokenise_questions(
    questions: list[tuple[tuple[str, str], ...]], tokenise: TextTokeniser
) -> list[tuple[AskedQuestion, ...]]:
    texts = [text for pairs in questions for pair in pairs for text in pair]
    if not texts:
        return [()] * len(questions)
    ids, lengths = tokenise(pa.array(texts, pa.string()))
    token_ids = iter(np.split(ids, np.cumsum(lengths)[:-1]))
    return [
        tuple(
            AskedQuestion(question, answer, next(token_ids).tolist(), next(token_ids).tolist())
            for question, answer in pairs
        )
        for pairs in questions
    ]


def _concatenated(arrays: list[NDArray], dtype: type) -> NDArray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)


def _lists(offsets: NDArray[np.int64], values: NDArray | pa.Array) -> pa.ListArray:
    flat = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _text_bytes(texts: pa.StringArray) -> tuple[NDArray[np.int32], memoryview]:
    """(E + 1,) offsets of the texts, and the UTF-8 bytes of all texts, one after the other."""
    if len(texts) == 0:
        return np.zeros(1, dtype=np.int32), memoryview(b"")
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    text = memoryview(data)[int(edges[0]) : int(edges[-1])] if data else memoryview(b"")
    return edges - edges[0], text
