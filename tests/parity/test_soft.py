"""Soft tokens: packing, causality, the cache of roll-outs, saving, and what the vectors hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtpp.core.errors import DataError, ModelError
from mmtpp.core.events import NO_FRAME, Events, intervals_from_times
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.soft_tokens import SoftTokens, shorten_texts
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.event_model import EventModel, load_event_model, save_trained
from mmtpp.model.parameters.lora import attach_lora
from mmtpp.soft.soft_folder import load_soft_model, save_soft
from mmtpp.soft.soft_model import SoftModel
from mmtpp.soft.soft_rollout import SoftDistributions
from mmtpp.soft.soft_settings import SoftSettings
from tests.helpers.tiny_models import IMAGE_PX, batcher, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
TYPE_CODES = (0, 2, 5)
RNG = np.random.default_rng(0)


def make_events(count: int, *, texts: bool = True) -> tuple[np.ndarray, Events]:
    times = np.cumsum(RNG.integers(0, 40, count) / 10)
    lengths = RNG.integers(0, 5, count) * texts
    offsets = np.append(0, np.cumsum(lengths))
    events = Events(
        intervals=intervals_from_times(times),
        types=RNG.choice(TYPE_CODES, count).astype(np.int16),
        text_ids=RNG.integers(0, 300, offsets[-1]).astype(np.int32),
        text_offsets=offsets,
        frames=np.full(count, NO_FRAME, dtype=np.int32),
        similar=np.zeros(count, dtype=np.bool_),
        times=times,
    )
    return times, events


TIMES, EVENTS = make_events(60)
MEMORY = MemorySettings.fit(
    PastEvents.from_sequence(TIMES, EVENTS.types, np.diff(EVENTS.text_offsets)),
    tick=0.1,
    seconds_per_unit=1.0,
)
SETTINGS = SoftSettings(
    memory=MEMORY, tick=0.1, type_codes=TYPE_CODES, width=16, num_components=4, dropout=0.0
)
TEMPLATE = Template(
    VOCABULARY.token_ids(), TemplateSettings("soft", "per_event", (IMAGE_PX // 28) ** 2)
)


def make_row(times: np.ndarray, events: Events, start: int = 0, frames: int = 0) -> PackedRow:
    """Row of the events from ``start`` on, with random frames where the events have some."""
    seen = events.slice(start, len(events))
    tokens = TEMPLATE.write(seen)
    shown = TEMPLATE.shows_image(seen)
    past = PastEvents.from_sequence(times, events.types, np.diff(events.text_offsets))
    soft = SoftTokens.from_events(memory_rows(MEMORY, past)[0][start:], seen, shown)
    pixels = np.random.default_rng(5).integers(0, 256, (frames, IMAGE_PX, IMAGE_PX, 3), np.uint8)
    may_be_label = np.ones(len(seen), dtype=np.bool_)
    return PackedRow.from_window(tokens, seen.types, pixels, may_be_label=may_be_label, soft=soft)


def join(first: PackedRow, second: PackedRow) -> PackedRow:
    """The rows as two segments of one row; only their texts and memory, no images."""
    assert first.soft is not None
    assert second.soft is not None
    soft = SoftTokens(
        np.concatenate([first.soft.memory, second.soft.memory]),
        np.concatenate([first.soft.intervals, second.soft.intervals]),
        np.concatenate([first.soft.text_ids, second.soft.text_ids]),
        np.append(
            first.soft.text_offsets, first.soft.text_offsets[-1] + second.soft.text_offsets[1:]
        ),
        np.concatenate([first.soft.has_image, second.soft.has_image]),
    )
    names = ("input_ids", "modality", "may_be_label", "event_type", "event_is_target")
    columns = {
        name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names
    }
    return replace(
        first,
        **columns,
        segment=np.repeat(np.arange(2, dtype=np.int32), [len(first.event), len(second.event)]),
        event=np.append(first.event, len(first.event) + second.event).astype(np.int32),
        soft=soft,
    )


@pytest.fixture(scope="module")
def model() -> SoftModel:
    return random_heads(SoftModel(tiny_backbone(VOCABULARY), SETTINGS))


def random_heads(model: SoftModel) -> SoftModel:
    """Random weights everywhere: new heads are zero, and would hide what their input holds."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for part in (model.network, model.soft_embedding):
            for parameter in part.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    return model.eval()


def nll(model: SoftModel, row: PackedRow) -> np.ndarray:
    """(N, 2) nats of interval and type of every label."""
    with torch.no_grad():
        return model(batcher(VOCABULARY, blank_frame=False)(row))[0].numpy().reshape(-1, 2)


def test_every_event_is_one_token_and_all_but_the_first_are_labels():
    row = make_row(TIMES, EVENTS)
    assert len(row.input_ids) == len(EVENTS)
    np.testing.assert_array_equal(row.label_positions(), np.arange(1, len(EVENTS)))
    np.testing.assert_array_equal(row.likelihood_events(), np.repeat(np.arange(1, len(EVENTS)), 2))
    np.testing.assert_array_equal(row.likelihood_modalities()[:4], [1, 2, 1, 2])
    assert TEMPLATE.costs(EVENTS).tolist() == [1] * len(EVENTS)


def test_a_long_text_keeps_its_first_and_last_tokens():
    ids = np.arange(100, 143, dtype=np.int32)
    kept, offsets = shorten_texts(ids, np.array([0, 3, 43]))
    assert offsets.tolist() == [0, 3, 35]
    assert kept.tolist() == [*range(100, 103), *range(103, 119), *range(127, 143)]


def test_windows_of_a_row_are_scored_apart(model: SoftModel):
    first = make_row(TIMES[:30], EVENTS.slice(0, 30))
    second = make_row(*make_events(20))
    together = nll(model, join(first, second))
    apart = np.concatenate([nll(model, first), nll(model, second)])
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


def test_later_events_change_nothing(model: SoftModel):
    short = nll(model, make_row(TIMES[:40], EVENTS.slice(0, 40)))
    np.testing.assert_allclose(
        nll(model, make_row(TIMES, EVENTS))[:39], short, rtol=1e-4, atol=1e-5
    )


def test_likelihoods_are_those_of_the_forecasts(model: SoftModel):
    row = make_row(TIMES, EVENTS)
    forecaster = SoftDistributions(model, VOCABULARY.type_ids(TYPE_CODES))
    forecasts = forecaster.forecast_labels(batcher(VOCABULARY, blank_frame=False)(row))
    intervals = torch.from_numpy(EVENTS.intervals[1:].astype(np.float32))
    types = np.searchsorted(TYPE_CODES, EVENTS.types[1:])
    log_types = forecasts.type_log_probabilities(intervals).numpy()
    expected = np.stack(
        [-forecasts.log_density(intervals).numpy(), -log_types[np.arange(len(types)), types]], 1
    )
    np.testing.assert_allclose(nll(model, row), expected, rtol=1e-4, atol=1e-5)


def test_texts_and_images_change_the_forecasts(model: SoftModel):
    plain = nll(model, make_row(*make_without_texts()))
    with_texts = nll(model, make_row(TIMES, EVENTS))
    assert np.abs(with_texts - plain).max() > 1e-3
    frames = EVENTS.frames.copy()
    frames[[4, 7]] = [0, 1]
    shown = nll(model, make_row(TIMES, replace(EVENTS, frames=frames), frames=2))
    np.testing.assert_allclose(shown[:4], with_texts[:4], rtol=1e-4, atol=1e-5)
    assert np.abs(shown[4:] - with_texts[4:]).max() > 1e-3


def make_without_texts() -> tuple[np.ndarray, Events]:
    """The same events without their texts; the memory still counts no length."""
    no_texts = replace(
        EVENTS,
        text_ids=np.zeros(0, dtype=np.int32),
        text_offsets=np.zeros(len(EVENTS) + 1, dtype=np.int64),
    )
    return TIMES, no_texts


def test_a_rollout_forecasts_as_a_row_with_the_same_events(model: SoftModel):
    times, events = make_without_texts()
    known, sampled = 40, 5
    past = PastEvents.from_sequence(times[:known], events.types[:known], np.zeros(known, int))
    forecaster = SoftDistributions(model, VOCABULARY.type_ids(TYPE_CODES))
    move = batcher(VOCABULARY, blank_frame=False)
    history = move(make_row(times[:known], events.slice(0, known), start=10))
    rollout = forecaster.begin_rollout(history, past, 3)
    row = make_row(times[: known + sampled + 1], events.slice(0, known + sampled + 1), start=10)
    expected = forecaster.forecast_labels(move(row))
    for step in range(sampled + 1):
        event = known + step
        interval = events.intervals[event : event + 1].repeat(3)
        label = event - 11  # the first event of the row is no label
        whole = expected.select(slice(label, label + 1))
        one = torch.from_numpy(interval[:1].astype(np.float32))
        np.testing.assert_allclose(
            rollout.log_likelihoods(interval)[0],
            whole.log_density(one).expand(3),
            rtol=1e-3,
            atol=1e-4,
        )
        index = int(np.searchsorted(TYPE_CODES, events.types[event]))
        rollout.append(interval, np.full(3, index))


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_saved_model_scores_the_same(tmp_path: Path, with_lora: bool):
    base, folder = tmp_path / "base", tmp_path / "trained"
    base.mkdir()
    folder.mkdir()
    backbone = tiny_backbone(VOCABULARY)
    save_trained(EventModel(backbone), VOCABULARY, base, base="")
    if with_lora:
        backbone = attach_lora(backbone, VOCABULARY.added_ids, rank=2, alpha=4, dropout=0.0)
    trained = random_heads(SoftModel(backbone, SETTINGS))
    save_soft(trained, folder)
    save_trained(trained, VOCABULARY, folder, base=str(base))
    loaded, _ = load_event_model(
        path=base if with_lora else folder,
        adapter=folder if with_lora else None,
        dtype=torch.float32,
    )
    again = load_soft_model(loaded, folder)
    assert again.settings == SETTINGS
    row = make_row(TIMES, EVENTS)
    np.testing.assert_allclose(nll(again, row), nll(trained, row), rtol=1e-5, atol=1e-6)


def test_an_unknown_type_is_refused(model: SoftModel):
    types = EVENTS.types.copy()
    types[3] = 4
    with pytest.raises(DataError, match=r"does not know the types \[4\]"):
        nll(model, make_row(TIMES, replace(EVENTS, types=types)))


def test_damaged_files_are_refused(model: SoftModel, tmp_path: Path):
    save_soft(model, tmp_path)
    (tmp_path / "soft.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_soft_model(EventModel(model.backbone), tmp_path)
    (tmp_path / "soft.json").write_text("{}")
    with pytest.raises(ModelError, match=r"soft.json is damaged"):
        load_soft_model(EventModel(model.backbone), tmp_path)
    (tmp_path / "soft.json").unlink()
    with pytest.raises(ModelError, match="no soft tokens"):
        load_soft_model(EventModel(model.backbone), tmp_path)
