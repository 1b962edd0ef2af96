"""Characters that a tokenizer cannot write: a byte of their UTF-8 has no token.

A byte-level BPE without one of the 256 byte letters drops such characters silently. SmolLM2's
tokenizer lacks 21 letters: 13 bytes that UTF-8 never has, F1 and F2, which begin the code points
U+40000 to U+BFFFF, and six control characters.
"""

from collections.abc import Mapping
from typing import Any

from mmtpp.core.errors import ModelError

REPLACEMENT = "\ufffd"
"""Character that replaces an unwritable one: Unicode's replacement character."""


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in a byte-level BPE: GPT-2's alphabet."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(shifted)}


_FALLBACK = "<0x{:02X}>"  # token of a byte in a BPE or Unigram tokenizer with byte fallback


def _has_byte_level(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    if pre_tokenizer is None:
        return False
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return any(part.get("type") == "ByteLevel" for part in parts)


def find_unwritable_bytes(tree: Mapping[str, Any]) -> bytes:
    """Bytes that have no token, in order.

    Args:
        tree: Content of a ``tokenizer.json``.

    Raises:
        ModelError: The tokenizer cannot write every text by bytes, or cannot write
            ``REPLACEMENT``.
    """
    model = tree["model"]
    vocabulary = model.get("vocab", {})
    if model.get("byte_fallback") and all(
        _FALLBACK.format(byte) in vocabulary for byte in range(256)
    ):
        return b""
    if model.get("type") != "BPE" or not _has_byte_level(tree.get("pre_tokenizer")):
        raise ModelError(
            "the tokenizer cannot write texts by their bytes",
            cause="it would drop characters or replace them by one unknown token; supported are "
            "byte-level BPE, and BPE with fallback to all 256 bytes",
        )
    missing = bytes(byte for byte, letter in byte_letters().items() if letter not in vocabulary)
    if set(missing) & set(REPLACEMENT.encode()):
        raise ModelError(
            "the tokenizer cannot write U+FFFD, which replaces characters it cannot write",
            cause=f"it has no tokens for the bytes {missing.hex(' ').upper()}",
        )
    return bytes(sorted(missing))


class CharacterFilter:
    """Replaces the characters that a tokenizer cannot write by ``REPLACEMENT``.

    Args:
        unwritable: Bytes without a token, see ``find_unwritable_bytes``.
    """

    def __init__(self, unwritable: bytes) -> None:
        self._unwritable = frozenset(unwritable)
        self._deleted = unwritable

    @property
    def keeps_all(self) -> bool:
        """Whether the tokenizer can write every character."""
        return not self._deleted

    def count(self, text: str) -> int:
        """Number of characters of a text that the tokenizer cannot write."""
        if not self._has_unwritable(text):
            return 0
        return sum(not self._unwritable.isdisjoint(char.encode()) for char in text)

    def __call__(self, text: str) -> str:
        """The text with every unwritable character replaced."""
        if not self._has_unwritable(text):
            return text
        return "".join(
            char if self._unwritable.isdisjoint(char.encode()) else REPLACEMENT for char in text
        )

    def _has_unwritable(self, text: str) -> bool:
        if not self._deleted:
            return False
        content = text.encode()
        return len(content.translate(None, self._deleted)) < len(content)
