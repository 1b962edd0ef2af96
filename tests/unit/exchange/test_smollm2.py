"""The tokenizer of SmolLM2's GGUF file, where ``make demo-pretrained`` has installed it."""

import random

import pytest

from cluster.pretrained_demo import find_weights
from mmtpp.core.errors import ClusterError
from mmtpp.exchange.gguf_import import read_fields
from mmtpp.exchange.gguf_tokenizer import build_tokenizer
from mmtpp.model.tokens.vocabulary import Vocabulary
from tests.helpers.unwritable import SMOLLM2_CONTROL

UNWRITABLE = {*SMOLLM2_CONTROL, *range(0x40000, 0xC0000)}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    try:
        path = find_weights()
    except ClusterError as error:
        pytest.skip(str(error))
    return Vocabulary(build_tokenizer(read_fields(path), where=str(path)).to_str())


def test_ids_are_the_known_ones(vocabulary: Vocabulary):
    assert vocabulary.encode_texts(["Hello world", "a\n12 34\n\n5"]) == [
        [19556, 905],
        [81, 198, 33, 34, 216, 35, 36, 1116, 37],  # every digit is a token, also after newlines
    ]
    assert (vocabulary.byte_base, vocabulary.special("<|im_end|>")) == (49152, 2)


def test_exactly_these_characters_cannot_be_written(vocabulary: Vocabulary):
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert {code for code in codes if vocabulary.num_unwritable(chr(code))} == UNWRITABLE


def test_texts_round_trip_and_no_character_vanishes(vocabulary: Vocabulary):
    draw = random.Random(0)
    ranges = (range(256), range(0xD800), range(0xE000, 0x110000))
    for _ in range(500):
        text = "".join(chr(draw.choice(draw.choice(ranges))) for _ in range(8))
        written = "".join("\ufffd" if ord(char) in UNWRITABLE else char for char in text)
        assert vocabulary.decode_text(*vocabulary.encode_texts([text])) == written
