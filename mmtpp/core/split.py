"""Splits by sequence: a stable hash decides, so a sequence never changes sides."""

import hashlib

SPLITS = ("train", "validation", "test")


def split_of(key: str, *, validation_fraction: float, test_fraction: float) -> str:
    """Name the split of a sequence.

    Args:
        key: of the sequence: its id, or what it shares with those that must be on its side.
        validation_fraction: share of sequences for validation, 0 to 1.
        test_fraction: share of sequences for the test, 0 to 1; the two sum to less than 1.

    Returns:
        ``train``, ``validation`` or ``test``; the same on every machine and in every run.
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    if position < test_fraction + validation_fraction:
        return "validation"
    return "train"
