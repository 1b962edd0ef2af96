"""The table of the kinds of sources."""

import pytest

from mmtpp.data.from_config import count_image_tokens
from mmtpp.data.sources import READERS, kinds_that_read


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".csv", ["columns", "easytpp"]),
        (".json", ["columns", "danmaku_qa", "mmtpp", "easytpp"]),
        (".xml", ["danmaku"]),
        (".xes", ["xes"]),
        (".docx", []),
    ],
)
def test_the_likeliest_kind_is_first_and_published_sets_are_not_offered(suffix, expected):
    assert kinds_that_read(suffix) == expected


def test_prepare_publishes_two_kinds():
    published = {kind for kind, reader in READERS.items() if reader.is_published_here}
    assert published == {"flights", "taxi"}


def test_tokens_of_an_image_by_hand():
    """One token covers 28 x 28 pixels."""
    assert [count_image_tokens(px) for px in (28, 56, 168)] == [1, 4, 36]
