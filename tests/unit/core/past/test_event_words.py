"""The words of texts: the first and the last tokens of each, in the order of the text."""

import numpy as np
import pytest

from mmtpp.core.past.event_words import FIRST_WORDS, LAST_WORDS, MAX_WORDS, NO_WORD, EventWords
from mmtpp.core.past.past_events import PastEvents

NUM_WORDS = 500


def _words(*texts: list[int], num_words: int = NUM_WORDS) -> EventWords:
    offsets = np.append(0, np.cumsum([len(text) for text in texts]))
    ids = np.array([token for text in texts for token in text], dtype=np.int32)
    return EventWords.from_tokens(ids, offsets, num_words)


def _padded(words: EventWords) -> list[list[int]]:
    rows = words.padded(np.arange(len(words))).tolist()
    return [[row for row in text if row != NO_WORD] for text in rows]


def test_a_row_is_an_id_plus_one():
    assert _padded(_words([0, 7, 7], [499])) == [[1, 8, 8], [500]]


def test_an_empty_text_has_no_words():
    words = _words([], [3], [])
    assert _padded(words) == [[], [4], []]
    assert len(words) == 3
    assert _padded(_words([], [])) == [[], []]


@pytest.mark.parametrize("length", [MAX_WORDS - 1, MAX_WORDS, MAX_WORDS + 1, 300])
def test_of_a_long_text_both_ends_are_kept(length: int):
    text = list(range(length))
    kept = text if length <= MAX_WORDS else text[:FIRST_WORDS] + text[-LAST_WORDS:]
    expected = [token + 1 for token in kept]
    assert _padded(_words([5], text, [6, 7])) == [[6], expected, [7, 8]]


def test_large_vocabularies_share_rows():
    words = _words([151_642, 3, 10], num_words=10)
    assert _padded(words) == [[3, 4, 1]]
    assert words.rows.min() >= 1
    assert words.rows.max() <= 10


def test_parts_join_to_the_whole():
    texts = [[1, 2, 3], [], list(range(90)), [4]]
    whole = _words(*texts)
    parts = [whole.slice(0, 1), whole.slice(1, 1), whole.slice(1, 3), whole.slice(3, 99)]
    joined = EventWords.join(parts)
    assert np.array_equal(joined.rows, whole.rows)
    assert np.array_equal(joined.offsets, whole.offsets)
    assert [len(part) for part in parts] == [1, 0, 2, 1]


def test_events_join_with_the_words_of_all_or_of_none():
    def events(words: EventWords | None) -> PastEvents:
        zeros = np.zeros(2, dtype=np.int64)
        return PastEvents.from_sequence(np.arange(2.0), zeros, zeros, words)

    words = _words([1], [2, 3])
    joined = PastEvents.join([events(words), events(words)])
    assert joined.words is not None
    assert _padded(joined.words) == [[2], [3, 4]] * 2
    [part] = [joined.slice(1, 3).words]
    assert part is not None
    assert _padded(part) == [[3, 4], [2]]
    assert PastEvents.join([events(None), events(None)]).words is None
    with pytest.raises(ValueError, match="words of some"):
        PastEvents.join([events(words), events(None)])
