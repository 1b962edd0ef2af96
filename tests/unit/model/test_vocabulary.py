"""The vocabulary: text is data, added ids are computed, hashes identify a vocabulary."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.errors import ModelError
from mmtpp.model.vocabulary import (
    MARKERS,
    NUM_ADDED,
    QWEN_SPECIAL_TOKENS,
    SPARE_ROWS,
    Vocabulary,
    load_vocabulary,
    train_tokenizer,
)

VOCABULARY = Vocabulary(train_tokenizer(["UA1545 to IAH, 737-824", "你好 world"] * 3, size=300))
FIRST_SPECIAL = VOCABULARY.special(QWEN_SPECIAL_TOKENS[0])
control = st.sampled_from(
    [*QWEN_SPECIAL_TOKENS, "<|byte_3|>", *(f"<|{name}|>" for name in MARKERS), "<tool_call>"]
)


@given(st.lists(st.text() | control, max_size=6).map("".join))
def test_control_strings_in_text_stay_text(text: str):
    (ids,) = VOCABULARY.encode_texts([text])
    assert all(token < FIRST_SPECIAL for token in ids)


@given(st.text(alphabet=st.characters(codec="ascii")) | control)
def test_text_round_trips(text: str):
    (ids,) = VOCABULARY.encode_texts([text])
    assert VOCABULARY.decode_text(ids) == text


def test_added_ids_follow_the_tokenizer_and_fit_the_spare_rows():
    assert NUM_ADDED <= SPARE_ROWS
    assert FIRST_SPECIAL + len(QWEN_SPECIAL_TOKENS) == VOCABULARY.byte_base
    assert VOCABULARY.type_ids([0, 255]) == [VOCABULARY.byte_base, VOCABULARY.byte_base + 255]
    markers = [VOCABULARY.marker(name) for name in MARKERS]
    start = VOCABULARY.byte_base + 256
    assert list(range(start, start + len(MARKERS))) == markers
    assert start + len(MARKERS) == VOCABULARY.num_tokens


def test_the_hash_is_recorded_and_checked(tmp_path):
    VOCABULARY.save(tmp_path)
    assert load_vocabulary(tmp_path).hash == VOCABULARY.hash
    other = Vocabulary(train_tokenizer(["something else entirely"], size=290))
    assert other.hash != VOCABULARY.hash
    (tmp_path / "tokenizer.json").write_text(other.tokenizer_json)
    with pytest.raises(ModelError, match="two vocabularies"):
        load_vocabulary(tmp_path)


def test_a_tokenizer_without_vision_tokens_is_refused():
    tree = json.loads(VOCABULARY.tokenizer_json)
    tree["added_tokens"] = tree["added_tokens"][:3]
    with pytest.raises(ModelError, match="vision_start"):
        Vocabulary(json.dumps(tree))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"added_tokens": []}'])
def test_an_invalid_tokenizer_is_refused(text: str):
    with pytest.raises(ModelError, match=r"tokenizer"):
        Vocabulary(text)
