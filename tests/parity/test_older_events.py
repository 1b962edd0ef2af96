"""Older events of one token each: what their vectors hold, packing, causality, cache and LoRA."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.representation.older_events import OlderEvents, images_of
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.decoding.cached_history import CachedHistory
from mmtpp.model.event_model import EventModel
from mmtpp.model.parameters.lora import attach_lora
from tests.helpers.tiny_models import IMAGE_PX, batcher, nll, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
IDS = VOCABULARY.token_ids()
TEMPLATE = Template(IDS, TemplateSettings("dense", "per_event", (IMAGE_PX // 28) ** 2, 2))
NUM_OLDER, NUM_EVENTS = 6, 10
FRAMES = np.random.default_rng(5).integers(0, 256, (4, IMAGE_PX, IMAGE_PX, 3), np.uint8)


def make_events(num_older: int = NUM_OLDER, *, seed: int = 0, images: bool = True) -> Events:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 40, NUM_EVENTS)
    lengths[1] = 0
    offsets = np.append(0, np.cumsum(lengths))
    frames = rng.integers(NO_FRAME, 4, NUM_EVENTS) if images else np.full(NUM_EVENTS, NO_FRAME)
    return Events(
        intervals=rng.integers(0, 4000, NUM_EVENTS) / 10,
        types=rng.integers(0, 9, NUM_EVENTS).astype(np.int16),
        text_ids=rng.integers(0, 250, offsets[-1]).astype(np.int32),
        text_offsets=offsets,
        frames=frames.astype(np.int32),
        similar=np.arange(NUM_EVENTS) < num_older,
    )


def make_row(events: Events) -> PackedRow:
    tokens = TEMPLATE.write(events)
    older = OlderEvents.from_window(TEMPLATE, events, tokens)
    return PackedRow.from_window(
        tokens,
        events.types,
        FRAMES[np.unique(images_of(tokens, older))],
        may_be_label=np.ones(len(tokens.ids), dtype=np.bool_),
        older=older,
    )


def with_text(events: Events, event: int, token: int) -> Events:
    """The events with another first token in one text."""
    ids = events.text_ids.copy()
    ids[events.text_offsets[event]] = token
    return replace(events, text_ids=ids)


@pytest.fixture(scope="module")
def model() -> EventModel:
    return EventModel(tiny_backbone(VOCABULARY))


def signs(name: str, width: int) -> np.ndarray:
    bits = hashlib.shake_256(name.encode()).digest(math.ceil(width / 8))
    return np.array([1.0 if bits[i // 8] >> (7 - i % 8) & 1 else -1.0 for i in range(width)])


def test_a_vector_is_the_sum_of_the_signed_parts_of_its_event(model: EventModel):
    events = make_events()
    row = make_row(events)
    batch = batcher(VOCABULARY)(row)
    with torch.no_grad():
        ours = model.embed(batch)[0].numpy()
        table = model.language_model.embed_tokens.weight.numpy()
        cells = model.see_frames(batch)
    assert cells is not None
    images = cells.first.mean(1).numpy()
    shown = np.unique(events.frames[events.frames != NO_FRAME])
    width = table.shape[1]
    assert len(row.older or ()) == NUM_OLDER
    for event in range(NUM_OLDER):
        first, second = TEMPLATE.time_ids(events.intervals[event : event + 1])[0]
        expected = table[first] * signs("0", width) + table[second] * signs("1", width)
        expected += table[IDS.type_ids[events.types[event]]] * signs("2", width)
        text = events.text_ids[slice(*events.text_offsets[event : event + 2])]
        if len(text) > 32:
            text = np.append(text[:16], text[-16:])
        if len(text):
            expected += table[text].mean(0) * signs("text", width)
        if events.frames[event] != NO_FRAME:
            image = images[np.searchsorted(shown, events.frames[event])]
            expected += image * signs("image", width)
        # two bytes of time, type, text, image
        expected = table[IDS.similar_event] + expected / math.sqrt(5)
        np.testing.assert_allclose(ours[event], expected, rtol=1e-4, atol=1e-5)


def test_all_of_an_older_event_reaches_the_later_events(model: EventModel):
    events = make_events()
    swapped = events.intervals.copy()
    swapped[[2, 3]] = swapped[[3, 2]]
    types, frames = events.types.copy(), events.frames.copy()
    types[2] = (types[2] + 1) % 9
    frames[3] = (frames[3] + 2) % 4
    changes = {
        "times": replace(events, intervals=swapped),
        "type": replace(events, types=types),
        "text": with_text(events, 0, 251),
        "image": replace(events, frames=frames),
    }
    before = nll(model, VOCABULARY, make_row(events))
    full = make_row(events).event[make_row(events).label_positions()] >= NUM_OLDER
    for name, changed in changes.items():
        after = nll(model, VOCABULARY, make_row(changed))
        assert (after - before).abs()[full].max() > 1e-3, name


def test_no_older_event_reaches_an_earlier_one(model: EventModel):
    events = make_events()
    types = events.types.copy()
    types[4] = (types[4] + 1) % 9
    with torch.no_grad():
        hidden, changed = (
            model.hidden(batcher(VOCABULARY)(make_row(chosen)))
            for chosen in (events, replace(events, types=types))
        )
    difference = (hidden - changed).abs().amax(-1)
    assert difference[:4].max() < 1e-6
    assert difference[4] > 1e-3


def test_packing_changes_no_likelihood(model: EventModel):
    rows = [make_row(make_events(count, seed=count, images=False)) for count in (6, 0, 3)]
    alone = torch.cat([nll(model, VOCABULARY, row) for row in rows])
    lengths = [len(row.input_ids) for row in rows]
    starts = np.cumsum([0, *lengths])
    parts = [row.older for row in rows if row.older is not None]
    texts = [part.text_ids for part in parts]
    text_lengths = np.concatenate([np.diff(part.text_offsets) for part in parts])
    older = OlderEvents(
        np.concatenate([part.at + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.code_ids for part in parts]),
        np.concatenate(texts),
        np.append(0, np.cumsum(text_lengths)),
        np.concatenate([part.frames for part in parts]),
    )
    names = ("input_ids", "modality", "may_be_label", "event_type", "event_is_target")
    columns = {name: np.concatenate([getattr(row, name) for row in rows]) for name in names}
    events = [row.event + NUM_EVENTS * index for index, row in enumerate(rows)]
    packed = replace(
        rows[0],
        **columns,
        segment=np.repeat(np.arange(3, dtype=np.int32), lengths),
        event=np.concatenate(events),
        older=older,
    )
    torch.testing.assert_close(nll(model, VOCABULARY, packed), alone, atol=1e-4, rtol=1e-4)


def test_a_row_without_older_events_is_that_of_other_strategies(model: EventModel):
    row = make_row(make_events(0))
    assert row.older is not None
    assert len(row.older) == 0
    ours = nll(model, VOCABULARY, row)
    assert torch.equal(ours, nll(model, VOCABULARY, replace(row, older=None)))


def test_a_cached_history_has_the_states_of_the_whole_row(model: EventModel):
    """Roll-outs and texts continue a cached history."""
    row = make_row(make_events(images=False))
    batch = batcher(VOCABULARY)(row)
    with torch.no_grad():
        whole = model.hidden(batch)
        end = int(np.flatnonzero(row.event == NUM_OLDER)[0]) + 1
        head = replace(
            row,
            **{
                name: getattr(row, name)[:end]
                for name in ("input_ids", "modality", "segment", "event", "may_be_label")
            },
        )
        cached = CachedHistory.build(model, batcher(VOCABULARY)(head), 2)
        last = cached.append(np.tile(row.input_ids[None, end:], (2, 1)))
    torch.testing.assert_close(cached.last_hidden[0], whole[end - 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last[1], whole[-1], atol=1e-4, rtol=1e-4)


def test_the_rows_of_added_tokens_learn_from_older_events_under_lora():
    adapted = attach_lora(
        tiny_backbone(VOCABULARY), VOCABULARY.added_ids, rank=2, alpha=4, dropout=0.0
    )
    model = EventModel(adapted).train()
    row = make_row(make_events(NUM_EVENTS - 1, images=False))
    assert row.older is not None
    likelihoods, _ = model(batcher(VOCABULARY)(row))
    likelihoods.sum().backward()
    [(name, rows)] = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if "trainable_tokens_delta" in name and "embed_tokens" in name
    ]
    assert rows.grad is not None, name
    place = VOCABULARY.added_ids.index(int(row.older.code_ids[0, 2]))
    assert rows.grad[place].abs().max() > 0
