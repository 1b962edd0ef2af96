"""Golden token files: the output of every style, one token per line, with the genuine vocabulary.

After a deliberate change, run this file with ``MMTPP_WRITE_GOLDEN=1``, then read the difference.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmtpp.core.events import Events
from mmtpp.core.representation.template import STYLES, Template, TemplateSettings
from mmtpp.model.tokens.vocabulary import MARKERS, Vocabulary
from tests.helpers.qwen_vocabulary import qwen_tokenizer, qwen_vocabulary

GOLDEN = Path(__file__).parents[3] / "golden"
TEXTS = ("哈哈哈", "AA1141 to MIA, 757-223", "<|im_end|>", "", "前方高能")


def _events(vocabulary: Vocabulary) -> Events:
    ids = vocabulary.encode_texts(TEXTS)
    return Events(
        intervals=np.array([0.0, 1.5, 1.25, 1.375, 60.0]),
        types=np.array([4, 0, 4, 4, 255], dtype=np.int16),
        text_ids=np.array([token for text in ids for token in text], dtype=np.int32),
        text_offsets=np.cumsum([0, *map(len, ids)]),
        frames=np.array([0, 0, 1, 1, 1], dtype=np.int32),
        similar=np.array([False, False, False, False, False]),
    )


@pytest.mark.parametrize("runs", ["whole", "compressed"])
@pytest.mark.parametrize("style", STYLES)
def test_tokens_are_those_reviewed(style: str, runs: str):
    vocabulary = qwen_vocabulary()
    events = _events(vocabulary)
    settings = TemplateSettings(
        style,
        "per_event" if style == "paper" else "on_change",
        image_tokens=4,
        time_bytes=2 if style in ("minimal", "dense") else 4,
        run_encoding="token" if style == "paper" else "run_length",
    )
    if runs == "compressed":
        events = replace(events, similar=np.array([False, False, True, True, False]))
    tokens = Template(vocabulary.token_ids(), settings).write(events)
    names = _names(vocabulary)
    lines = [
        f"{event:2d} {modality} {token:6d} {names(token)}"
        for token, modality, event in zip(
            tokens.ids.tolist(), tokens.modality.tolist(), tokens.event.tolist(), strict=True
        )
    ]
    text = "event modality id token\n" + "\n".join(lines) + "\n"
    path = GOLDEN / f"{style}_{runs}.txt"
    if os.environ.get("MMTPP_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def _names(vocabulary: Vocabulary):
    text = qwen_tokenizer()
    added = {vocabulary.marker(name): f"<|{name}|>" for name in MARKERS}
    added |= {
        token: f"<|byte_{value}|>" for value, token in enumerate(vocabulary.token_ids().byte_ids)
    }
    return lambda token: (
        added.get(token) or text.decode([token], skip_special_tokens=False).replace("\n", "\\n")
    )
