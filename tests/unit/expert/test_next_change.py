"""Where the next image will differ: networks with images learn it, and only for their features."""

import itertools
import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtpp.core.past.event_images import IMAGE_SIDE, IMAGE_VALUES, NO_IMAGE, EventImages
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.hawkes_targets import HawkesTargets
from mmtpp.expert.image_patches import PATCH_PX, PATCHES_A_SIDE, UNKNOWN, patch_changes
from mmtpp.expert.network import ExpertNetwork
from mmtpp.expert.next_events import EventBlocks, NextEvents, ScoredSequence
from mmtpp.expert.read_sequences import without_images
from mmtpp.expert.training_statistics import TrainingStatistics
from mmtpp.model.folders.description import EXPERT_FILE
from tests.helpers.small_experts import SETTINGS as SMALL_SETTINGS
from tests.helpers.small_experts import TICK, finish

SETTINGS = replace(SMALL_SETTINGS, num_networks=1, epochs=12, dropout=0.1, learning_rate=1e-2)


def _with_square(place: int) -> np.ndarray:
    """A grey image with one bright patch in the first row of patches."""
    image = np.full((IMAGE_SIDE, IMAGE_SIDE, 3), 40, dtype=np.uint8)
    image[:PATCH_PX, place * PATCH_PX : (place + 1) * PATCH_PX] = 220
    return image.reshape(-1)


PIXELS = np.stack([_with_square(place) for place in range(PATCHES_A_SIDE)])


def _sequences(number: int, seed: int, num_events: int = 60) -> list[ScoredSequence]:
    """A bright patch that moves to the right, one step an event; types and times are random.

    One event in ten has no image.
    """
    rng = np.random.default_rng(seed)
    sequences = []
    for place in range(number):
        past = PastEvents.from_sequence(
            np.cumsum(rng.gamma(20.0, 0.1, num_events)).round(1),
            rng.integers(0, 2, num_events),
            np.zeros(num_events, dtype=np.int64),
        )
        index = (rng.integers(PATCHES_A_SIDE) + np.arange(num_events)) % PATCHES_A_SIDE
        index[::10] = NO_IMAGE
        images = EventImages.from_sequence(PIXELS, index.astype(np.int32))
        past = replace(past, images=images)
        sequences.append(ScoredSequence(f"{seed}-{place}", past, np.arange(num_events) > 0))
    return sequences


TRAINING = _sequences(20, 0)
MEMORY = MemorySettings.fit(
    PastEvents.join(sequence.past for sequence in TRAINING), tick=TICK, seconds_per_unit=1.0
)


def _blocks(sequences: list[ScoredSequence]) -> EventBlocks:
    return EventBlocks.from_sequences(MEMORY, sequences, tick=TICK)


def _events(seed: int) -> NextEvents:
    return NextEvents.from_sequences(MEMORY, _sequences(2, seed), tick=TICK)


@pytest.fixture(scope="module")
def fit() -> ExpertFit:
    validation = _blocks(_sequences(5, 1))
    settings = {"num_types": 2, "settings": SETTINGS, "reads_images": True}
    return finish(ExpertFit(_blocks(TRAINING), validation, **settings))


def _change_nll(fit: ExpertFit, events: NextEvents, changes: torch.Tensor) -> torch.Tensor:
    [network] = fit.networks()
    with torch.inference_mode():
        *_, change_nll = network(
            events.inputs,
            events.next_intervals,
            events.next_types,
            changes=changes,
        )
    return change_nll


def test_changes_are_those_between_the_next_image_and_the_one_before():
    [sequence] = _sequences(1, 2)
    events = NextEvents.from_sequences(MEMORY, [sequence], tick=TICK)
    assert sequence.past.images is not None
    shown = sequence.past.images.index[:, 0]
    changes = events.changes
    assert changes is not None
    for row, (before, after) in enumerate(itertools.pairwise(shown)):
        expected = np.zeros(PATCHES_A_SIDE**2)
        expected[[before, after]] = 1
        if NO_IMAGE in (before, after):
            expected[:] = UNKNOWN
        assert changes[row].tolist() == expected.tolist()
    taken = events.take(np.array([5, 3])).changes
    assert taken is not None
    assert torch.equal(taken, changes[[5, 3]])
    without = NextEvents.from_sequences(MEMORY, without_images([sequence]), tick=TICK)
    assert without.changes is None


def test_noise_of_compression_is_no_change():
    older = torch.full((1, IMAGE_VALUES), 100, dtype=torch.int16)
    newer = older.clone()
    newer[0, 0] = 106
    newer[0, 3 * PATCH_PX] = 120
    [changes] = patch_changes(torch.stack([newer, older], 1)).tolist()
    assert changes == [0, 1] + [0] * (PATCHES_A_SIDE**2 - 2)


def test_a_network_learns_where_images_change(fit: ExpertFit):
    events = _events(3)
    changes = events.changes
    assert changes is not None
    nll = _change_nll(fit, events, changes)
    is_known = changes[:, 0] != UNKNOWN
    assert not nll[~is_known].any()
    # two of 64 patches change; the nats of a network that knows only this
    share = 2 / PATCHES_A_SIDE**2
    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share)) * PATCHES_A_SIDE**2
    assert nll[is_known].mean() < 0.2 * entropy


def test_the_loss_is_that_of_independent_patches(fit: ExpertFit):
    events = _events(4)
    changes = events.changes
    assert changes is not None
    assert events.images is not None
    [network] = fit.networks()
    with torch.inference_mode():
        features, logits = network.image_features.with_next_change(events.images)
        assert torch.equal(features, network.image_features(events.images))
    assert logits is not None
    chances = 1 / (1 + np.exp(-logits.double().numpy()))
    known = changes.numpy()
    expected = -np.where(known == 1, np.log(chances), np.log1p(-chances))
    expected = np.where(known == UNKNOWN, 0.0, expected).sum(1)
    assert np.allclose(_change_nll(fit, events, changes), expected, atol=1e-4)


def test_a_network_starts_with_the_share_of_changes_in_the_training_images(
    fit: ExpertFit,
):
    statistics = TrainingStatistics.from_events(_blocks(TRAINING))
    assert statistics.patches is not None
    odds = 2 / (PATCHES_A_SIDE**2 - 2)
    fraction = statistics.patches.change_fraction
    assert fraction == pytest.approx(2 / PATCHES_A_SIDE**2, rel=1e-2)
    network = deepcopy(fit.networks()[0])
    network.start_from(statistics)
    assert network.image_features.next_change is not None
    assert float(network.image_features.next_change.bias) == pytest.approx(math.log(odds), rel=1e-2)


def _with_changed_patches(num_patches: int) -> list[ScoredSequence]:
    """The sequences with images of which this number of 64 patches differs from the next."""
    pixels = np.full((2, IMAGE_SIDE, IMAGE_SIDE, 3), 40, dtype=np.uint8)
    for patch in range(num_patches):
        row, column = (PATCH_PX * place for place in divmod(patch, PATCHES_A_SIDE))
        pixels[1, row : row + PATCH_PX, column : column + PATCH_PX] = 220
    sequences = []
    for sequence in _sequences(2, 0):
        index = (np.arange(len(sequence.past)) % 2).astype(np.int32)
        images = EventImages.from_sequence(pixels.reshape(2, -1), index)
        sequences.append(replace(sequence, past=replace(sequence.past, images=images)))
    return sequences


@pytest.mark.parametrize(
    ("num_patches", "weight", "learns"),
    [
        (0, None, True),
        (3, None, True),
        (4, None, False),
        (64, None, False),
        (64, 0.1, True),
        (0, 0.0, False),
    ],
)
def test_changes_are_learnt_where_few_patches_change_or_a_weight_is_set(
    num_patches: int, weight: float | None, learns: bool
):
    settings = replace(SETTINGS, num_networks=1, max_steps=1, next_image_weight=weight)
    fit = ExpertFit(
        _blocks(_with_changed_patches(num_patches)),
        None,
        num_types=2,
        settings=settings,
        reads_images=True,
    )
    network = fit._state.network
    assert network.size.predicts_change == learns
    assert (network.image_features.next_change is not None) == learns


def test_the_weight_scales_the_gradient_of_the_changes():
    """One step from the same start: twice the weight is twice the gradient of the change layer."""
    gradients = []
    for weight in (0.001, 0.002):  # small beside the other losses, so both are clipped alike
        settings = replace(SETTINGS, num_networks=1, max_steps=1, next_image_weight=weight)
        fit = ExpertFit(_blocks(TRAINING), None, num_types=2, settings=settings, reads_images=True)
        fit.run_step()
        layer = fit._state.network.image_features.next_change
        assert layer is not None
        gradients.append(fit._state.optimizer.state[layer.weight]["exp_avg"])
    torch.testing.assert_close(gradients[1], 2 * gradients[0], rtol=1e-3, atol=0)


def test_the_image_after_a_drawn_event_is_unknown():
    blocks = _blocks(TRAINING)
    drawn = HawkesTargets.fit(blocks, num_types=2, fraction=0.5)
    events, draws = blocks.load(0), drawn.draws(0)
    index = np.arange(len(events))
    replaced = drawn.replace(events, index, draws, 0.5, np.random.default_rng(0))
    changes, true = replaced.changes, events.changes
    assert changes is not None
    assert true is not None
    was_known = true[:, 0] != UNKNOWN
    is_known = changes[:, 0] != UNKNOWN
    assert not is_known[~was_known].any()
    assert 0.4 < is_known[was_known].float().mean() < 0.6
    assert torch.equal(changes[is_known], true[is_known])
    assert torch.equal(replaced.next_types[is_known], events.next_types[is_known])


def test_experts_of_earlier_versions_predict_no_changes(fit: ExpertFit, tmp_path: Path):
    [network] = fit.networks()
    old = ExpertNetwork(replace(network.size, predicts_change=False), network.scale)
    old.load_state_dict({name: network.state_dict()[name] for name in old.state_dict()})
    Expert(MEMORY, TICK, (old.eval(),), image_px=56).save(tmp_path)
    settings = json.loads((tmp_path / EXPERT_FILE).read_text())
    del settings["network"]["predicts_change"]
    (tmp_path / EXPERT_FILE).write_text(json.dumps(settings))
    [loaded] = load_expert(str(tmp_path)).networks
    events = _events(6)
    with torch.inference_mode():
        expected = network.hidden(events.inputs)
        hidden = loaded.hidden(events.inputs)
    torch.testing.assert_close(hidden, expected)
