"""Characters that a tokenizer cannot write are replaced by U+FFFD and counted, never dropped."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.errors import ModelError
from mmtpp.model.tokens.unwritable_characters import (
    REPLACEMENT,
    CharacterFilter,
    byte_letters,
    find_unwritable_bytes,
)
from mmtpp.model.tokens.vocabulary import Vocabulary
from tests.helpers.unwritable import (
    SMOLLM2_CONTROL,
    SMOLLM2_UNWRITABLE,
    tokenizer_without,
    whole_tokenizer,
)

VOCABULARY = Vocabulary(tokenizer_without(SMOLLM2_UNWRITABLE))
WHOLE = Vocabulary(whole_tokenizer())


def test_the_letters_are_those_of_a_byte_level_bpe():
    letters = byte_letters()
    assert len(set(letters.values())) == 256
    assert (letters[0x20], letters[0x0A], letters[0x41], letters[0xAD]) == ("Ġ", "Ċ", "A", "Ń")


def test_missing_letters_are_found():
    tree = json.loads(tokenizer_without(SMOLLM2_UNWRITABLE))
    assert find_unwritable_bytes(tree) == SMOLLM2_UNWRITABLE
    assert find_unwritable_bytes(json.loads(whole_tokenizer())) == b""


@pytest.mark.parametrize("code", [0x40000, 0x7FFFF, 0x80000, 0xBFFFF, *SMOLLM2_CONTROL])
def test_a_character_without_a_token_is_replaced_and_counted(code: int):
    text = f"a{chr(code)}b{chr(code)}"
    (ids,) = VOCABULARY.encode_texts([text])
    assert VOCABULARY.decode_text(ids) == f"a{REPLACEMENT}b{REPLACEMENT}"
    assert VOCABULARY.num_unwritable(text) == 2


@pytest.mark.parametrize("code", [0, 5, 0x1F, 0x7F, 0x3FFFF, 0xC0000, 0x10FFFF, 0x1F680, 0xFFFD])
def test_their_neighbours_are_kept(code: int):
    text = f"a{chr(code)}b"
    (ids,) = VOCABULARY.encode_texts([text])
    assert VOCABULARY.decode_text(ids) == text
    assert VOCABULARY.num_unwritable(text) == 0


@given(st.text())
def test_no_character_vanishes(text: str):
    (ids,) = VOCABULARY.encode_texts([text])
    written = CharacterFilter(SMOLLM2_UNWRITABLE)(text)
    assert len(written) == len(text)
    assert written.count(REPLACEMENT) == text.count(REPLACEMENT) + VOCABULARY.num_unwritable(text)
    assert VOCABULARY.decode_text(ids) == WHOLE.decode_text(*WHOLE.encode_texts([written]))


def test_a_tokenizer_that_cannot_write_the_replacement_is_refused():
    with pytest.raises(ModelError, match=r"cannot write U\+FFFD[\s\S]*the bytes BD"):
        Vocabulary(tokenizer_without(b"\xbd"))


def test_a_tokenizer_without_byte_letters_is_refused():
    tree = json.loads(whole_tokenizer())
    tree["pre_tokenizer"] = {"type": "Whitespace"}
    with pytest.raises(ModelError, match="cannot write texts by their bytes"):
        Vocabulary(json.dumps(tree))


def test_a_fallback_to_all_bytes_can_write_everything():
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = dict(zip(names, range(256), strict=True))
    model = {"type": "BPE", "byte_fallback": True, "vocab": vocabulary}
    assert find_unwritable_bytes({"model": model, "pre_tokenizer": None}) == b""
    del vocabulary["<0x00>"]
    with pytest.raises(ModelError, match="fallback to all 256 bytes"):
        find_unwritable_bytes({"model": model, "pre_tokenizer": None})
