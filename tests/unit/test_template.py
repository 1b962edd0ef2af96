"""Templates: golden layouts written by hand, and laws against an independent loop."""

import numpy as np
import pytest
from hypothesis import given

from mmtpp.core.template import IMAGE_MODES, STYLES, Events, Modality, Template
from mmtpp.core.timecode import encode_intervals
from tests.unit.strategies import IDS, events

# 1.5 is 0x3FC00000: bytes 63 192 0 0
EVENTS = Events(
    time_bytes=encode_intervals(np.array([0.0, 1.5, 1.5])),
    types=np.array([4, 7, 7], dtype=np.int16),
    text_ids=np.array([101, 102, 103], dtype=np.int32),
    text_offsets=np.array([0, 2, 3, 3]),
    frames=np.array([0, 0, 1], dtype=np.int32),
    similar=np.array([False, False, True]),
)


def test_paper_layout_token_for_token():
    template = Template(IDS, style="paper", images="per_event", image_tokens=4)
    tokens = template.write(EVENTS)
    first = [1, 20, 3, 1000, 1000, 1000, 1000, 4, 20, 5, 1004, 6, 20, 7, 101, 102, 8]
    second = [1, 20, 3, 1063, 1192, 1000, 1000, 4, 20, 5, 1007, 6, 20, 7, 103, 8]
    image = [20, 10, 11, 11, 11, 11, 12]
    end = [20, 2, 21]
    assert [30, 31, 32, *first, *image, *end, *second, *image, *end, 9, 21] == tokens.ids.tolist()
    assert tokens.frames.tolist() == [0, 0]


def test_compact_layout_drops_blanks_and_repeated_images():
    template = Template(IDS, style="compact", images="on_change", image_tokens=4)
    tokens = template.write(EVENTS)
    first = [1, 3, 1000, 1000, 1000, 1000, 4, 5, 1004, 6, 7, 101, 102, 8]
    second = [1, 3, 1063, 1192, 1000, 1000, 4, 5, 1007, 6, 7, 103, 8, 2]
    assert [*first, 10, 11, 11, 11, 11, 12, 2, *second, 9] == tokens.ids.tolist()
    assert tokens.frames.tolist() == [0]


def test_minimal_layout_and_its_modalities():
    template = Template(IDS, style="minimal", images="on_change", image_tokens=1)
    tokens = template.write(EVENTS)
    first = [1000, 1000, 1000, 1000, 1004, 101, 102, 8, 10, 11, 12]
    second = [1063, 1192, 1000, 1000, 1007, 103, 8]
    assert [*first, *second, 9] == tokens.ids.tolist()
    expected = [1, 1, 1, 1, 2, 3, 3, 4, 4, 0, 4, 1, 1, 1, 1, 2, 3, 4, 4]
    assert expected == tokens.modality.tolist()
    assert tokens.event.tolist() == [0] * 11 + [1] * 7 + [2]


@pytest.mark.parametrize("images", IMAGE_MODES)
@pytest.mark.parametrize("style", STYLES)
@given(events())
def test_costs_and_tokens_agree_with_a_plain_loop(style: str, images: str, given_events: Events):
    template = Template(IDS, style=style, images=images, image_tokens=4)
    tokens = template.write(given_events)
    expected, frames = _plain(given_events, style, images)
    assert expected == tokens.ids.tolist()
    assert frames == tokens.frames.tolist()
    assert len(template.prefix) + template.costs(given_events).sum() == len(tokens.ids)
    assert 4 * len(frames) == (tokens.ids == IDS.image_pad).sum()
    assert (
        (tokens.modality == Modality.MASKED)
        == ((tokens.ids == IDS.image_pad) | (tokens.event == -1))
    ).all()


def _plain(window: Events, style: str, images: str) -> tuple[list[int], list[int]]:
    """The same layout, one token after the other."""
    paper, minimal = style == "paper", style == "minimal"
    out = [30, 31, 32] if paper else []
    blank = [20] if paper else []
    frames: list[int] = []
    for i in range(len(window)):
        if window.similar[i]:
            out += [9, 21] if paper else [9]
            continue
        text = window.text_ids[window.text_offsets[i] : window.text_offsets[i + 1]].tolist()
        time = [1000 + int(byte) for byte in window.time_bytes[i]]
        kind = [1000 + int(window.types[i])]
        if minimal:
            out += [*time, *kind, *text, 8]
        else:
            out += [1, *blank, 3, *time, 4, *blank, 5, *kind, 6, *blank, 7, *text, 8]
        frame = int(window.frames[i])
        changed = not frames or frames[-1] != frame
        if frame != -1 and (images == "per_event" or (images == "on_change" and changed)):
            out += [*blank, 10, 11, 11, 11, 11, 12]
            frames.append(frame)
        if not minimal:
            out += [*blank, 2]
        if paper:
            out += [21]
    return out, frames


@pytest.mark.parametrize(("style", "images"), [("neat", "none"), ("paper", "sometimes")])
def test_unknown_names_are_refused(style: str, images: str):
    with pytest.raises(ValueError, match="unknown"):
        Template(IDS, style=style, images=images, image_tokens=4)
