"""Find early that sequence ids occur in several shards, from a sample of the ids of each."""

import hashlib
from collections import Counter
from collections.abc import Sequence

SAMPLE_SIZE = 256
MAX_SHARDS = 1024  # whose samples are kept; an exact check follows after the last shard


def sample_ids(ids: Sequence[str]) -> list[int]:
    """Hashes of some ids.

    The sample has the smallest hashes, so that the samples of two shards with many common ids have
    common hashes, too. If an id occurs twice, the sample is its hash, twice.

    Args:
        ids: Ids of the sequences of a shard.
    """
    hashes = [int.from_bytes(hash_of_id(name)[:7]) for name in ids]
    repeated = next((value for value, count in Counter(hashes).items() if count > 1), None)
    return sorted(hashes)[:SAMPLE_SIZE] if repeated is None else [repeated, repeated]


class IdSamples:
    """Samples of the ids of several shards."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._num_shards = 0

    def add(self, sample: Sequence[int]) -> bool:
        """Add the sample of a shard; returns whether it shows an id that occurs more than once."""
        values = set(sample)
        repeats = len(values) < len(sample) or not values.isdisjoint(self._seen)
        if self._num_shards < MAX_SHARDS:
            self._seen |= values
            self._num_shards += 1
        return repeats


def hash_of_id(sequence_id: str) -> bytes:
    """The hash of a sequence id: 32 bytes, the same in every process."""
    return hashlib.sha256(sequence_id.encode()).digest()
