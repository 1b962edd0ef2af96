"""A tokenizer without some byte letters, as SmolLM2's is."""

import json
from functools import cache

from mmtpp.model.tokens.unwritable_characters import byte_letters
from mmtpp.model.tokens.vocabulary import train_tokenizer

SMOLLM2_CONTROL = (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D)
SMOLLM2_UNWRITABLE = bytes([*SMOLLM2_CONTROL, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)])
"""Bytes that have no token in SmolLM2's tokenizer."""


@cache
def whole_tokenizer() -> str:
    """A small tokenizer that can write every text."""
    return train_tokenizer(["Roger, Houston. You are GO at 12 minutes."] * 3, size=300)


def tokenizer_without(missing: bytes) -> str:
    """The small tokenizer without the letters of some bytes."""
    tree = json.loads(whole_tokenizer())
    letters = byte_letters()
    for byte in missing:
        del tree["model"]["vocab"][letters[byte]]
    return json.dumps(tree)
