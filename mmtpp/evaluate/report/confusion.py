"""True types against forecast types: the most frequent types by name, all other types as one."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MAX_TYPES = 20


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each true type is forecast as each type.

    Axes: K types, at most ``MAX_TYPES``.

    Attributes:
        names: K full names; where there are more types, the last name stands for all other types.
        counts: (K, K) number of events; rows are true types, columns forecast types.
        num_types: Number of types that occur or are forecast.
        num_folded: Number of types that share the last row and column; 0 where no types share one.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    num_types: int
    num_folded: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K, K) counts divided by the sum of their row; 0 in rows without events."""
        return self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)

    @property
    def note(self) -> str:
        """A sentence that says which types are shown."""
        if not self.num_folded:
            return f"All {self.num_types} types that occur or are forecast."
        num_named = self.num_types - self.num_folded
        return (
            f"The {num_named} most frequent of {self.num_types} types; the other {self.num_folded} "
            "are one row and one column."
        )


def count_confusion(targets: pa.Table, names: list[str]) -> Confusion | None:
    """Count true types against forecast types, the most frequent type first.

    Args:
        targets: ``targets.TARGET_SCHEMA``.
        names: Names of the types by code.

    Returns:
        The counts, or None where types were not forecast.
    """
    if targets["predicted_type"].null_count == len(targets):
        return None
    true, predicted = (targets[name].to_numpy() for name in ("type", "predicted_type"))
    codes, indices = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    size = len(codes)
    true_index, predicted_index = indices[: len(true)], indices[len(true) :]
    # the most frequent type first; of equally frequent types the one that is forecast more often
    order = np.lexsort(
        (-np.bincount(predicted_index, minlength=size), -np.bincount(true_index, minlength=size))
    )
    num_named = size if size <= MAX_TYPES else MAX_TYPES - 1
    row_of = np.empty(size, dtype=np.int64)
    row_of[order] = np.minimum(np.arange(size), num_named)
    num_rows = min(size, num_named + 1)
    counts = np.zeros((num_rows, num_rows), dtype=np.int64)
    np.add.at(counts, (row_of[true_index], row_of[predicted_index]), 1)
    shown = [names[code] for code in codes[order[:num_named]].tolist()]
    if num_rows > num_named:
        shown.append(f"{size - num_named} other types")
    return Confusion(tuple(shown), counts, size, size - num_named)
