"""Images: the expert learns from them, and nothing changes where there are none."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.past.event_images import IMAGE_VALUES, NO_IMAGE, EventImages
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.expert_futures import FutureSettings, sample_futures
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.fit_state import FitProgress
from mmtpp.expert.network_losses import mean_losses
from mmtpp.expert.next_events import EventBlocks, NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import without_images
from mmtpp.expert.rollout import ExpertRollout
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.folders.description import EXPERT_FILE
from tests.helpers.small_experts import SETTINGS as SMALL_SETTINGS
from tests.helpers.small_experts import TICK, finish

DARK, BRIGHT = 0, 1  # images that decide the next type
PIXELS = np.repeat(np.array([[40], [220]], dtype=np.uint8), IMAGE_VALUES, axis=1)
SETTINGS = replace(
    SMALL_SETTINGS,
    num_networks=1,
    epochs=12,
    dropout=0.1,
    memory_dropout=0.0,
    learning_rate=1e-2,
)


def _sequences(number: int, seed: int, num_events: int = 60) -> list[ScoredSequence]:
    """Images that say the next type; one event in ten has no image."""
    rng = np.random.default_rng(seed)
    sequences = []
    for place in range(number):
        types = rng.integers(0, 2, num_events)
        times = np.cumsum(rng.gamma(20.0, np.where(types == 0, 0.1, 1.0))).round(1)
        index = np.append(types[1:], 0)
        index[::10] = NO_IMAGE
        past = replace(
            PastEvents.from_sequence(times, types, np.zeros(num_events, dtype=np.int64)),
            images=EventImages.from_sequence(PIXELS, index.astype(np.int32)),
        )
        sequences.append(ScoredSequence(f"{seed}-{place}", past, np.arange(num_events) > 0))
    return sequences


TRAINING, VALIDATION = _sequences(20, 0), _sequences(5, 1)
MEMORY = MemorySettings.fit(
    PastEvents.join(sequence.past for sequence in TRAINING), tick=TICK, seconds_per_unit=1.0
)


def _fit(*, with_images: bool = True) -> ExpertFit:
    blocks = [
        EventBlocks.from_sequences(
            MEMORY, sequences if with_images else without_images(sequences), tick=TICK
        )
        for sequences in (TRAINING, VALIDATION)
    ]
    return ExpertFit(*blocks, num_types=2, settings=SETTINGS, reads_images=with_images)


@pytest.fixture(scope="module")
def fit() -> ExpertFit:
    return finish(_fit())


@pytest.fixture(scope="module")
def expert(fit: ExpertFit) -> Expert:
    return Expert(MEMORY, TICK, tuple(fit.networks()), image_px=56)


def _events() -> NextEvents:
    return NextEvents.from_sequences(MEMORY, VALIDATION, tick=TICK)


def test_images_say_the_next_type(fit: ExpertFit):
    without = finish(_fit(with_images=False))
    losses = fit.validation_losses(fit.networks())
    losses_without = without.validation_losses(without.networks())
    assert losses is not None
    assert losses_without is not None
    # without the image, the next type and its interval are a coin
    assert losses.nll < losses_without.nll - 0.7 * np.log(2)


def test_another_image_is_another_forecast(expert: Expert):
    events = _events()
    assert events.images_before is not None
    swapped = EventImages(PIXELS[::-1].copy(), events.images_before.index)
    likely = [
        ExpertForecasts.after(
            expert.networks, replace(events.inputs, images=torch.from_numpy(shown.values))
        )
        .type_log_probabilities(torch.full((len(events),), 6.0))
        .argmax(1)
        for shown in (events.images_before, swapped)
    ]
    has_image = torch.from_numpy(events.images_before.index[:, 0] != NO_IMAGE)
    assert (likely[0] != likely[1])[has_image].float().mean() > 0.9
    assert torch.equal(likely[0][~has_image], likely[1][~has_image])


def test_order_does_not_matter(expert: Expert):
    events = _events()
    backwards = events.take(np.arange(len(events))[::-1].copy())
    [network] = expert.networks
    with torch.inference_mode():
        expected = network.hidden(events.inputs)
        hidden = network.hidden(backwards.inputs)
    torch.testing.assert_close(hidden.flip(0), expected)


def test_no_image_adds_nothing(expert: Expert):
    [network] = expert.networks
    none = torch.full((3, 2, IMAGE_VALUES), NO_IMAGE, dtype=torch.int16)
    with torch.inference_mode():
        assert not network.image_features(none).any()


def test_networks_and_events_agree_on_images(expert: Expert):
    events = NextEvents.from_sequences(MEMORY, without_images(VALIDATION), tick=TICK)
    assert events.images is None
    with pytest.raises(ValueError, match="whether images are read"):
        ExpertForecasts.after(expert.networks, events.inputs)
    [network] = expert.networks
    with pytest.raises(ValueError, match="whether images are read"):
        network(events.inputs, events.next_intervals, events.next_types)


def test_a_folder_gives_back_the_images(expert: Expert, tmp_path):
    expert.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    loaded = load_expert(str(tmp_path))
    assert loaded.reads_images
    assert loaded.image_px == 56
    blocks = EventBlocks.from_sequences(MEMORY, VALIDATION, tick=TICK)
    assert mean_losses(loaded.networks, blocks) == mean_losses(expert.networks, blocks)


def test_folders_of_earlier_versions_have_no_images(tmp_path):
    networks = tuple(finish(_fit(with_images=False)).networks())
    Expert(MEMORY, TICK, networks).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    settings = json.loads((tmp_path / EXPERT_FILE).read_text())
    del settings["network"]["reads_images"], settings["image_px"]
    (tmp_path / EXPERT_FILE).write_text(json.dumps(settings))
    loaded = load_expert(str(tmp_path))
    assert not loaded.reads_images
    assert loaded.image_px == 0


def test_futures_begin_with_the_image_of_the_last_event(expert: Expert):
    past = VALIDATION[0].past.slice(0, 41)
    shares = []
    for image in (DARK, BRIGHT):
        images = EventImages.from_sequence(PIXELS, np.full(41, image, np.int32))
        shown = replace(past, images=images)
        [futures] = sample_futures(
            ExpertRollout(expert, [SequenceState.after(expert.memory, shown)], 200),
            FutureSettings(200, 1000.0, 3),
            [np.random.default_rng(0)],
        )
        shares.append(futures.types[:, 0].mean())
        assert np.isfinite(futures.intervals).all()
    assert shares[0] < 0.15
    assert shares[1] > 0.85


def test_a_resumed_training_has_the_same_weights():
    whole, part = _fit(), _fit()
    for _ in range(5):
        part.run_step()
    resumed = _fit()
    resumed.restore(FitProgress(step=5), part.tensors())
    for _ in range(3):
        resumed.run_step()
    for _ in range(8):
        whole.run_step()
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
