"""The genuine Qwen2.5 vocabulary and the vocabulary of a published adapter."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtpp.core.errors import ModelError
from mmtpp.core.events import Events
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.timecode import encode_intervals
from mmtpp.model.tokens.vocabulary import MARKERS, SPARE_ROWS, Vocabulary
from tests.helpers.qwen_vocabulary import (
    num_merges,
    published_tokenizer,
    qwen_tokenizer,
    qwen_vocabulary,
)

PUBLISHED_CONTROL = [
    "<|similar_event|>",
    "<|byte_3|>",
    "<|type_1|>",
    "<|image_pad|>",
    "<|im_end|>",
    "<time_prediction>",
    "<|start_of_event|>",
    "<tool_call>",
    "<|endoftext|>",
    "<|vision_start|>",
]
FIRST_SPECIAL = 151643


@pytest.fixture(scope="module")
def qwen() -> Vocabulary:
    return qwen_vocabulary()


@pytest.fixture(scope="module")
def published() -> Vocabulary:
    return Vocabulary(published_tokenizer().to_str())


def test_ids_are_the_known_ones(qwen: Vocabulary):
    assert num_merges() == 151387
    assert qwen.encode_texts(["你好", "hello world", " ", "\n"]) == [
        [108386],
        [14990, 1879],
        [220],
        [198],
    ]
    assert qwen.special("<|endoftext|>") == 151643
    assert qwen.special("<|im_end|>") == 151645
    assert qwen.special("<|vision_start|>") == 151652
    assert qwen.special("<|image_pad|>") == 151655
    assert 151665 == qwen.byte_base == qwen.token_ids().byte_ids[0]


def test_nothing_is_resized_on_3b_or_7b(qwen: Vocabulary):
    """Published bugs 5, 6 and 24: the 3B table has 151,936 rows and the 7B table 152,064."""
    assert qwen.num_tokens <= 151665 + SPARE_ROWS == 151936 < 152064
    assert list(range(151665, qwen.num_tokens)) == qwen.added_ids
    assert 256 + len(MARKERS) == len(qwen.added_ids) <= SPARE_ROWS


@given(st.lists(st.text() | st.sampled_from(PUBLISHED_CONTROL), max_size=8).map("".join))
def test_control_strings_in_text_stay_text(qwen: Vocabulary, published: Vocabulary, text: str):
    """Published bug 9: a comment that spells a control token must not become one."""
    for vocabulary in (qwen, published):
        (ids,) = vocabulary.encode_texts([text])
        assert all(token < FIRST_SPECIAL for token in ids)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=30))
def test_text_is_tokenised_as_by_the_backbone(qwen: Vocabulary, text: str):
    """A text without control strings has the ids of the tokenizer itself."""
    if not any(name in text for name in ("<|", "<tool", "</tool")):
        assert [qwen_tokenizer().encode(text).ids] == qwen.encode_texts([text])


def test_a_published_adapter_keeps_its_own_ids(published: Vocabulary):
    ids = published.token_ids()
    assert published.is_published
    assert (ids.start_of_event, ids.similar_event) == (151665, 151674)
    assert (ids.byte_ids[0], ids.byte_ids[255]) == (151675, 151930)
    assert tuple(range(151931, 151940)) == ids.type_ids
    assert ids.time_prediction == 151673
    # the published tokenizer lacks this marker
    assert 151940 == ids.type_prediction == published.num_tokens - 1
    assert published.type_ids([3]) == [151934]


def test_other_published_stages_keep_their_ids_too():
    """Type fine-tuning has one more marker; the taxi scripts lack the marker of similar events."""
    typed = Vocabulary(published_tokenizer("<event_type_prediction>").to_str())
    assert 151940 == typed.marker("type_prediction") == typed.num_tokens - 1
    tree = json.loads(published_tokenizer().to_str())
    tree["added_tokens"] = [t for t in tree["added_tokens"] if "similar" not in t["content"]]
    taxi = Vocabulary(json.dumps(tree)).token_ids()
    assert taxi.start_of_event == 151665
    assert {taxi.similar_event, taxi.type_prediction} == {151940, 151941}


def test_a_published_stage_two_tokenizer_is_refused_by_name():
    """Published bug 5: the time stage has no type tokens, so its ids have another meaning."""
    tree = json.loads(published_tokenizer().to_str())
    tree["added_tokens"] = [t for t in tree["added_tokens"] if "type_" not in t["content"]]
    with pytest.raises(ModelError, match="type_start"):
        Vocabulary(json.dumps(tree))


def _events(intervals: list[float], types: list[int], texts: list[str], vocabulary: Vocabulary):
    ids = vocabulary.encode_texts(texts)
    similar = [False] + [abs(b - a) < 0.2 for a, b in itertools.pairwise(intervals)]
    return Events(
        intervals=np.array(intervals),
        types=np.array(types, dtype=np.int16),
        text_ids=np.array([token for text in ids for token in text], dtype=np.int32),
        text_offsets=np.cumsum([0, *map(len, ids)]),
        frames=np.arange(len(texts), dtype=np.int32),
        similar=np.array(similar, dtype=np.bool_),
    )


harmless = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<"), max_size=12)
sequences = st.lists(
    st.tuples(st.floats(0, 1e5, width=32), st.integers(0, 8), harmless.map(str.strip)),
    min_size=1,
    max_size=6,
)


@given(sequences)
def test_the_paper_style_is_the_published_format_token_for_token(published: Vocabulary, sequence):
    """The published script writes one string and tokenises it; the ids are the same."""
    intervals, types, texts = (list(column) for column in zip(*sequence, strict=True))
    events = _events(intervals, types, texts, published)
    line = "Event Sequence:\n"
    for index, (interval, kind, text) in enumerate(sequence):
        if events.similar[index]:
            line += "<|similar_event|>\n"
            continue
        code = encode_intervals(np.array([interval]))[0].tolist()
        line += (
            "<|start_of_event|> <|time_start|>"
            + "".join(f"<|byte_{byte}|>" for byte in code)
            + f"<|time_end|> <|type_start|><|type_{kind}|><|type_end|> <|text_start|>{text}"
            + "<|text_end|> <|vision_start|>"
            + 9 * "<|image_pad|>"
            + "<|vision_end|> <|end_of_event|>\n"
        )
    expected = published_tokenizer().encode(line).ids
    template = Template(
        published.token_ids(), TemplateSettings("paper", "per_event", image_tokens=9)
    )
    assert template.write(events).ids.tolist() == expected
