"""The vocabulary: text is data, added ids are computed, hashes identify a vocabulary."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.errors import ModelError
from mmtpp.model.tokens.chat import LLAMA_3
from mmtpp.model.tokens.vocabulary import (
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


def _with_special(*names: str) -> Vocabulary:
    """The vocabulary of a tokenizer with other special tokens."""
    tree = json.loads(VOCABULARY.tokenizer_json)
    first = tree["added_tokens"][0]
    tree["added_tokens"] = [
        {**first, "id": FIRST_SPECIAL + index, "content": name} for index, name in enumerate(names)
    ]
    return Vocabulary(json.dumps(tree))


def test_image_and_role_tokens_that_a_tokenizer_lacks_follow_the_markers():
    vocabulary = _with_special("<|endoftext|>", "<|im_start|>", "<s>")
    base = FIRST_SPECIAL + 3
    assert vocabulary.byte_base == base
    lacking = ("<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    actual = [vocabulary.special(name) for name in lacking]
    assert actual == list(range(base + NUM_ADDED, base + NUM_ADDED + 4))
    assert vocabulary.special("<|im_start|>") == FIRST_SPECIAL + 1
    assert vocabulary.added_ids == list(range(base, base + NUM_ADDED + 4))
    assert vocabulary.num_tokens == base + NUM_ADDED + 4
    assert json.loads(vocabulary.describe())["special_tokens"] == dict(
        zip(lacking, actual, strict=True)
    )


def test_a_tokenizer_without_any_special_token_gets_its_own():
    vocabulary = _with_special()
    assert vocabulary.byte_base == FIRST_SPECIAL
    assert vocabulary.token_ids().end_of_text == vocabulary.special("<|endoftext|>")
    assert vocabulary.special("<|endoftext|>") == FIRST_SPECIAL + NUM_ADDED


def test_the_chat_of_a_llama_3_tokenizer_has_its_own_roles():
    vocabulary = _with_special(*LLAMA_3.tokens)
    ids = vocabulary.token_ids()
    first, start, after, close, end = map(
        vocabulary.special,
        (LLAMA_3.first, LLAMA_3.open, LLAMA_3.after_role, LLAMA_3.close, LLAMA_3.end_of_text),
    )
    system, user, assistant, help_text, history, gap = vocabulary.encode_texts(
        [
            "system",
            "user",
            "assistant",
            "\n\nYou are a helpful assistant.",
            "\n\nEvent Sequence History:\n",
            "\n\n",
        ]
    )
    expected = [first, start, *system, after, *help_text, close, start, *user, after, *history]
    assert ids.chat_prefix == tuple(expected)
    assert ids.chat_turn == (close, start, *assistant, after, *gap)
    assert ids.end_of_text == end
    assert not vocabulary.has_special("<|im_start|>")


def test_special_tokens_among_the_text_tokens_are_never_generated():
    tree = json.loads(VOCABULARY.tokenizer_json)
    tree["added_tokens"][0]["id"] = 5  # as in SmolLM2, whose special tokens come first
    assert Vocabulary(json.dumps(tree)).control_ids == [5]
    assert VOCABULARY.control_ids == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"added_tokens": []}'])
def test_an_invalid_tokenizer_is_refused(text: str):
    with pytest.raises(ModelError, match=r"tokenizer"):
        Vocabulary(text)
