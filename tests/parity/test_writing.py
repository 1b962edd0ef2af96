"""Compare texts generated on a cached history with a forward pass for every token."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.representation.branches import lay_out_branches, lay_out_questions
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.decoding.generation import GenerationSettings, TextGenerator
from mmtpp.model.event_model import EventModel
from tests.helpers.tiny_models import CELLS, batcher, tiny_backbone, tiny_vocabulary
from tests.parity.branched_rows import events_of, row_alone, row_of

VOCABULARY = tiny_vocabulary()
IDS = VOCABULARY.token_ids()
PAD = VOCABULARY.special("<|image_pad|>")
END = VOCABULARY.marker("text_end")


@pytest.fixture(scope="module")
def model() -> EventModel:
    return EventModel(tiny_backbone(VOCABULARY))


def _questions(style: str = "compact") -> PackedRow:
    template = Template(
        IDS, TemplateSettings(style, "on_change", image_tokens=CELLS), has_questions=True
    )
    laid = lay_out_questions(template, events_of(8, seed=3), [([7, 8], [9]), ([10], [11, 12])])
    return replace(row_of([laid]), questions=laid.questions, event=laid.tokens.event)


def _logits(model: EventModel, row: PackedRow, more: list[int]) -> torch.Tensor:
    """Logits after a row and more text tokens, without a cache."""
    size = len(row.input_ids)
    plain = replace(
        row,
        input_ids=np.append(row.input_ids, np.array(more, dtype=np.int32)),
        modality=np.append(row.modality, np.full(len(more), 3, dtype=np.uint8)),
        segment=np.zeros(size + len(more), dtype=np.int32),
        event=np.append(row.event, np.zeros(len(more), dtype=np.int32)),
        may_be_label=np.zeros(size + len(more), dtype=np.bool_),
    )
    with torch.no_grad():
        return model.head.logits(model.hidden(batcher(VOCABULARY)(plain))[-1:])[0]


def _expected(model: EventModel, row: PackedRow, count: int) -> list[int]:
    written: list[int] = []
    while len(written) < count:
        logits = _logits(model, row, written)
        allowed = [*range(VOCABULARY.num_text_tokens), END]
        token = allowed[int(logits[allowed].argmax())]
        if token == END:
            break
        written.append(token)
    return written


@pytest.mark.parametrize("style", ["compact", "paper", "dense"])
def test_every_generated_token_is_the_most_likely_one(model: EventModel, style: str):
    row = _questions(style)
    generator = TextGenerator(model, VOCABULARY, GenerationSettings(max_tokens=12))
    for question in range(2):
        plain = row.before_question(question, image_pad=PAD, with_question=True)
        assert plain.input_ids[-1] == row.input_ids[row.questions.at[question]]  # pyright: ignore[reportOptionalMemberAccess]
        expected = VOCABULARY.decode_text(_expected(model, plain, 12))
        assert generator(batcher(VOCABULARY)(plain)) == expected
        # the same with the question as a prompt
        before = row.before_question(question, image_pad=PAD)
        prompt = plain.input_ids[len(before.input_ids) :].tolist()
        assert generator(batcher(VOCABULARY)(before), prompt) == expected


def test_a_branch_has_the_logits_of_a_separate_row(model: EventModel):
    template = Template(IDS, TemplateSettings("compact", "on_change", image_tokens=CELLS))
    laid = lay_out_branches(template, events_of(8, seed=4), [3, 7], tasks=["text"])
    row = replace(row_of([laid]), questions=laid.questions, event=laid.tokens.event)
    hidden = model.hidden(batcher(VOCABULARY)(row))
    for question, at in enumerate(laid.questions.at.tolist()):
        plain = row.before_question(question, image_pad=PAD, with_question=True)
        alone = model.hidden(batcher(VOCABULARY)(plain))[-1]
        assert torch.allclose(hidden[at], alone, atol=1e-4)


def test_limits_of_length_and_repetition_hold(model: EventModel):
    row = row_alone(_questions(), np.arange(30))
    history = batcher(VOCABULARY)(row)

    def tokens(**settings: float) -> list[int]:
        generator = TextGenerator(model, VOCABULARY, GenerationSettings(**settings))  # pyright: ignore[reportArgumentType]
        generated: list[int] = []
        decode = VOCABULARY.decode_text
        try:
            VOCABULARY.decode_text = lambda ids: generated.extend(ids) or ""
            generator(history)
        finally:
            VOCABULARY.decode_text = decode
        return generated

    free = tokens(max_tokens=40)
    assert tokens(max_tokens=40, repetition_penalty=1.0) == free
    assert len(free) <= 40
    assert len(tokens(max_tokens=40, min_tokens=40)) == 40
    for size in (1, 2):
        held = tokens(max_tokens=40, min_tokens=40, no_repeat_ngram=size)
        grams = [tuple(held[place : place + size]) for place in range(len(held) - size + 1)]
        assert len(grams) == len(set(grams))
    rare = tokens(max_tokens=40, min_tokens=40, repetition_penalty=5.0)
    assert len(set(rare)) >= len(set(tokens(max_tokens=40, min_tokens=40)))
    assert all(token < VOCABULARY.num_text_tokens for token in free + rare)
