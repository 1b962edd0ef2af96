"""Gathers the tokens of a window from parts of its events.

A window is a table with one row for each event and one column for each part of an event, such as
the time code. A column says where the tokens of the part are in a pool. All tokens of the window
are gathered from the pool at once, because a loop over the events in Python is slow.

Axes: E events of the window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.tokens import Modality, Tokens


@dataclass(frozen=True, slots=True)
class TokenColumn:
    """One part of every event, such as the time code.

    Attributes:
        lengths: (E,) number of the part's tokens in each event.
        sources: (E,) position of the tokens in the pool, or one position for all events.
    """

    lengths: NDArray[np.integer] | NDArray[np.bool_]
    sources: NDArray[np.int64] | int


@dataclass(frozen=True, slots=True)
class FixedTokens:
    """Tokens that are the same in every window: their position in the pool and their number."""

    start: int
    length: int

    def where(self, written: NDArray[np.bool_]) -> TokenColumn:
        """The column that has these tokens in the chosen events."""
        return TokenColumn(self.length * written, self.start)


class FixedParts:
    """The parts of an event whose tokens are the same in every window, by name.

    Args:
        parts: Token ids of each part.
        masked_id: Token that is masked; the other tokens are control tokens.
    """

    def __init__(self, parts: Mapping[str, Sequence[int]], *, masked_id: int) -> None:
        self._ids = np.array([token for part in parts.values() for token in part], np.int32)
        is_masked = self._ids == masked_id
        self._modality = np.where(is_masked, Modality.MASKED, Modality.CONTROL).astype(np.uint8)
        ends = np.cumsum([len(part) for part in parts.values()]).tolist()
        self._parts = {
            name: FixedTokens(end - len(part), len(part))
            for (name, part), end in zip(parts.items(), ends, strict=True)
        }

    def __getitem__(self, name: str) -> FixedTokens:
        return self._parts[name]

    def pool(self) -> "TokenPool":
        """A pool that begins with the tokens of these parts."""
        return TokenPool(self._ids, self._modality)


class TokenPool:
    """The tokens from which a window is gathered, with their modalities.

    Args:
        ids: Ids of the fixed tokens, the first tokens of the pool.
        modality: Their modalities.
    """

    def __init__(self, ids: NDArray[np.int32], modality: NDArray[np.uint8]) -> None:
        self._ids = [ids]
        self._modality = modality
        self._added: list[Modality] = []
        self._size = len(ids)

    def add(self, ids: NDArray[np.int32], modality: Modality) -> int:
        """Add tokens and return the position of the first."""
        start = self._size
        self._ids.append(ids)
        self._added.append(modality)
        self._size += len(ids)
        return start

    def ids(self) -> NDArray[np.int32]:
        """The ids of all tokens."""
        return np.concatenate(self._ids)

    def modality(self) -> NDArray[np.uint8]:
        """The modalities of all tokens."""
        sizes = [len(ids) for ids in self._ids[1:]]
        added = np.repeat(np.array(self._added, dtype=np.uint8), sizes)
        return np.concatenate([self._modality, added])


def gather_tokens(
    columns: Sequence[TokenColumn],
    pool: TokenPool,
    *,
    prefix: Sequence[int],
    owner: NDArray[np.int32],
    frames: NDArray[np.int32],
) -> Tokens:
    """Gather the columns of every event from the pool, event by event.

    Args:
        columns: Parts of the events, in the order in which they are written.
        pool: Tokens of the parts.
        prefix: Ids of the tokens before the first event; they are masked.
        owner: (E,) event to which the tokens of each row belong.
        frames: Frames of the images that are written.
    """
    lengths = np.empty((len(owner), len(columns)), dtype=np.int64)
    sources = np.empty_like(lengths)
    for index, column in enumerate(columns):
        lengths[:, index], sources[:, index] = column.lengths, column.sources
    flat = lengths.ravel()
    ends = np.cumsum(flat)
    begins = ends - flat
    num_prefix, num_written = len(prefix), int(ends[-1]) if len(ends) else 0
    # Each pair of event and column copies `flat` tokens: in the pool they start at its source, in
    # the output at `begins`. So token p of the output is token source + (p - begins) of the pool.
    source = np.repeat(sources.ravel() - begins, flat)
    source += np.arange(num_written)
    ids = np.empty(num_prefix + num_written, dtype=np.int32)
    modality = np.empty(len(ids), dtype=np.uint8)
    event = np.empty(len(ids), dtype=np.int32)
    ids[:num_prefix] = prefix
    modality[:num_prefix] = Modality.MASKED
    event[:num_prefix] = -1
    np.take(pool.ids(), source, out=ids[num_prefix:])
    np.take(pool.modality(), source, out=modality[num_prefix:])
    event[num_prefix:] = np.repeat(owner, lengths.sum(axis=1))
    return Tokens(ids, modality, event, frames)
