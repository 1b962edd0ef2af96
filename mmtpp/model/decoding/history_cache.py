"""The keys and values of the histories that were used last, by name."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from mmtpp.model.history_keys import HistoryKeys


class HistoryCache:
    """Keeps keys and values of histories, at most a number of bytes.

    Args:
        max_bytes: Largest memory of all keys and values; the history that was not used for longest
            is dropped. 0 keeps none.

    Attributes:
        num_bytes: Memory of the kept keys and values.
        num_dropped: Number of histories that were dropped for others, or are larger than the cache.
        num_computed: Number of histories of which no token was kept when they were read.
        num_cut: Number of times that kept tokens were dropped because a history no longer begins
            with them, such as when its first events leave the window.
        num_uncached: Number of rows that were read whole, because token ids do not say all that the
            model reads of them.
        tokens_kept: Number of tokens of all histories that were read from the cache.
        tokens_computed: Number of tokens of all histories that passed the model.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._keys: OrderedDict[str, HistoryKeys] = OrderedDict()
        self.num_bytes = self.num_dropped = self.num_computed = self.num_cut = 0
        self.num_uncached = self.tokens_kept = self.tokens_computed = 0

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, name: str, ids: NDArray[np.int32]) -> HistoryKeys:
        """Take the keys and values of the common beginning of a history out of the cache.

        Args:
            name: Name of the history.
            ids: Token ids of the history.
        """
        keys = self._keys.pop(name, None)
        if keys is None:
            keys = HistoryKeys()
        else:
            self.num_bytes -= keys.num_bytes
        before = len(keys)
        keys.cut_to(ids)
        self.num_cut += len(keys) < before
        self.num_computed += not len(keys)
        self.tokens_kept += len(keys)
        self.tokens_computed += len(ids) - len(keys)
        return keys

    def get(self, name: str) -> HistoryKeys | None:
        """The kept keys and values of a history; None if there are none."""
        return self._keys.get(name)

    def put(self, name: str, keys: HistoryKeys) -> None:
        """Keep keys and values as those that were used last, and drop others for them."""
        self._keys[name] = keys
        self.num_bytes += keys.num_bytes
        while self.num_bytes > self._max_bytes:
            _, dropped = self._keys.popitem(last=False)
            self.num_bytes -= dropped.num_bytes
            self.num_dropped += 1

    def remove(self, name: str) -> None:
        """Forget a history."""
        keys = self._keys.pop(name, None)
        if keys is not None:
            self.num_bytes -= keys.num_bytes
