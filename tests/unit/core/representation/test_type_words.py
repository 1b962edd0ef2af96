"""The names of types in templates: layouts by hand, costs, and no leak into labels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import branch_costs, lay_out_branches
from mmtpp.core.representation.row import HISTORY
from mmtpp.core.representation.template import STYLES, Template, TemplateSettings
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.representation.type_words import MAX_NAME_TOKENS, words_of_types
from tests.unit.generators import IDS, events

BLANK = 20
# types 0 and 1 have names of one and three tokens
WORDS = words_of_types([[301], [302, 303, 304]], BLANK)
# 1.5 is 0x3FC00000: bytes 63 192 0 0
EVENTS = Events(
    intervals=np.array([0.0, 1.5, 1.5]),
    types=np.array([1, 0, 0], dtype=np.int16),
    text_ids=np.array([101, 102, 103], dtype=np.int32),
    text_offsets=np.array([0, 2, 3, 3]),
    frames=np.array([-1, -1, -1], dtype=np.int32),
    similar=np.array([False, False, True]),
)


def _template(style: str, words: tuple[tuple[int, ...], ...] = WORDS, **more: object) -> Template:
    return Template(IDS, TemplateSettings(style, "none", image_tokens=4, type_words=words, **more))


def test_names_are_equally_long():
    assert WORDS == ((301, BLANK, BLANK), (302, 303, 304))
    cut = words_of_types([list(range(MAX_NAME_TOKENS + 3)), [7]], BLANK)
    assert cut == (tuple(range(MAX_NAME_TOKENS)), (7, *[BLANK] * (MAX_NAME_TOKENS - 1)))
    assert words_of_types([], BLANK) == ()


def test_dense_layout_token_for_token():
    """The name follows the code; a similar event has none."""
    template = _template("dense", time_bytes=2)
    tokens = template.write(EVENTS)
    first = [1000, 1000, 1001, 302, 303, 304, 101, 102]
    second = [1063, 1192, 1000, 301, BLANK, BLANK, 103]
    assert tokens.ids.tolist() == [*first, *second, 9]
    assert tokens.modality.tolist() == [
        *(*[Modality.TIME] * 2, Modality.TYPE, *[Modality.MASKED] * 3, *[Modality.TEXT] * 2),
        *(*[Modality.TIME] * 2, Modality.TYPE, *[Modality.MASKED] * 3, Modality.TEXT),
        Modality.CONTROL,
    ]
    assert template.costs(EVENTS).tolist() == [8, 7, 1]


def test_a_type_without_a_name_is_refused():
    unknown = replace(EVENTS, types=np.array([1, 2, 0], dtype=np.int16))
    with pytest.raises(ValueError, match="type 2: only 2 types have a name"):
        _template("dense").write(unknown)


@given(
    events(),
    st.sampled_from(STYLES),
    st.lists(st.lists(st.integers(300, 400), max_size=8), min_size=256, max_size=256),
)
def test_only_masked_tokens_are_added(sequence: Events, style: str, names: list[list[int]]):
    words = words_of_types(names, BLANK)
    plain, named = _template(style, ()), _template(style, words)
    tokens, with_names = plain.write(sequence), named.write(sequence)
    assert named.costs(sequence).sum() == len(with_names.ids) - len(named.prefix)
    width = named.words_cost
    is_type = np.flatnonzero(with_names.modality == Modality.TYPE)
    added = (is_type[:, None] + np.arange(1, 1 + width)).ravel().astype(np.int64)
    rest = np.delete(np.arange(len(with_names.ids)), added)
    assert with_names.ids[rest].tolist() == tokens.ids.tolist()
    assert with_names.modality[rest].tolist() == tokens.modality.tolist()
    assert (with_names.modality[added] == Modality.MASKED).all()
    full = sequence.types[~sequence.similar]
    expected = [token for code in full for token in words[code]] if width else []
    assert with_names.ids[added].tolist() == expected


@settings(max_examples=15)
@given(events(min_size=2, max_size=10), st.sampled_from(STYLES))
def test_no_branch_has_the_name_of_its_target(sequence: Events, style: str):
    """A branch has the name of the newest event, where it repeats the event in full."""
    distinct = replace(sequence, types=np.arange(len(sequence), dtype=np.int16))
    words = tuple((2000 + code,) for code in range(256))
    chosen = TemplateSettings(style, "none", image_tokens=4, type_words=words)
    template = Template(IDS, chosen, has_questions=True)
    tasks = ("time", "type", "joint", "text")
    costs = branch_costs(template, distinct, tasks=tasks)
    for target in range(1, len(distinct)):
        laid = lay_out_branches(template, distinct, [target], tasks=tasks)
        in_branch = laid.branches.branch != HISTORY
        names = laid.tokens.ids[in_branch & (laid.tokens.modality == Modality.MASKED)]
        names = names[names >= 2000].tolist()
        assert names == [1999 + target] * int(sequence.similar[target - 1])
        assert in_branch.sum() <= costs[target]
        if not sequence.similar[target - 1]:
            assert in_branch.sum() == costs[target]
