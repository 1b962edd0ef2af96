"""Forecasts of an expert, against sums and samples; its folder; its futures."""

import json

import numpy as np
import pytest
import torch

from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.model_kind import ModelKind
from mmtpp.expert import grid_forecasts
from mmtpp.expert.expert_folder import WEIGHTS_FILE, Expert, load_expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.expert_futures import FutureSettings, sample_futures
from mmtpp.expert.rollout import ExpertRollout
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.folders.description import EXPERT_FILE, describe_model
from tests.helpers.small_experts import TICK, SmallFit, alternating_sequences


@pytest.fixture(scope="module")
def forecasts(small: SmallFit, expert: Expert) -> ExpertForecasts:
    events = small.validation.load(0).take(slice(0, 40))
    return ExpertForecasts.after(expert.networks, events.inputs)


def test_interval_and_type_have_the_mean_of_the_joint_distributions(
    small: SmallFit, expert: Expert, forecasts: ExpertForecasts
):
    events = small.validation.load(0).take(slice(0, 40))
    densities = []
    for network in expert.networks:
        with torch.inference_mode():
            nll = sum(
                network(
                    events.inputs,
                    events.next_intervals,
                    events.next_types,
                ),
                torch.zeros(40),
            )
        densities.append(torch.exp(-nll.double()))
    expected = torch.stack(densities).mean(0).log()
    types = forecasts.type_log_probabilities(events.next_intervals)
    joint = forecasts.log_density(events.next_intervals) + types.gather(
        1, events.next_types[:, None]
    ).squeeze(1)
    torch.testing.assert_close(joint, expected, rtol=1e-5, atol=1e-5)


def test_the_grid_has_the_probabilities_of_ticks(forecasts: ExpertForecasts):
    grid = IntervalRange(TICK, 60.0, TICK).grid(num_bytes=2).coarsened(8)
    intervals = forecasts.on_grid(grid).intervals()
    assert np.allclose(intervals.zero + intervals.mass.sum(axis=1), 1.0)
    ticks = np.arange(1, 600) * TICK
    for value in (0.7, 2.0, 20.0):
        below = ticks[ticks < value + TICK / 4]
        total = sum(
            np.exp(forecasts.log_density(torch.full((40,), float(tick))).numpy()) * TICK
            for tick in (0.0, *below)
        )
        assert intervals.cdf(np.full(40, value + TICK / 2)) == pytest.approx(total, abs=2e-3)


def test_simultaneous_events_have_the_probability_of_zero(forecasts: ExpertForecasts):
    grid = IntervalRange(TICK, 60.0, TICK).grid(num_bytes=2).coarsened(8)
    intervals = forecasts.on_grid(grid).intervals()
    of_tick = np.exp(forecasts.log_density(torch.zeros(40)).numpy()) * TICK
    inside = 1 - intervals.outside
    assert intervals.zero * inside == pytest.approx(of_tick, abs=1e-6)
    # an interval of zero is within every interval of quantiles that begins at most at its level
    levels = np.append(0.0, np.linspace(0.01, 0.99, 99))
    quantiles = intervals.quantiles(levels.tolist())
    assert not ((quantiles > 0) & (quantiles < TICK / 2)).any()
    assert ((quantiles == 0) == (levels <= intervals.zero[:, None])).all()


@pytest.mark.parametrize("rows_per_pass", [7, 1024])
def test_the_type_alone_is_the_mean_over_intervals(
    forecasts: ExpertForecasts, monkeypatch: pytest.MonkeyPatch, rows_per_pass: int
):
    monkeypatch.setattr(grid_forecasts, "_ROWS_PER_PASS", rows_per_pass)
    grid = IntervalRange(TICK, 60.0, TICK).grid(num_bytes=2)
    marginal = forecasts.on_grid(grid).type_log_probabilities()
    assert np.exp(marginal).sum(axis=1) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    samples = np.mean(
        [
            np.exp(
                forecasts.type_log_probabilities(
                    torch.from_numpy(forecasts.sample_intervals(rng).astype(np.float32))
                ).numpy()
            )
            for _ in range(400)
        ],
        axis=0,
    )
    assert np.exp(marginal) == pytest.approx(samples, abs=0.02)


def test_sampled_intervals_follow_the_distribution(forecasts: ExpertForecasts):
    grid = IntervalRange(TICK, 60.0, TICK).grid(num_bytes=2)
    intervals = forecasts.on_grid(grid).intervals()
    rng = np.random.default_rng(0)
    samples = np.stack([forecasts.sample_intervals(rng) for _ in range(500)])
    for level in (0.25, 0.5, 0.75):
        quantiles = intervals.quantiles((level,))[:, 0]
        assert (samples <= quantiles).mean() == pytest.approx(level, abs=0.02)


def test_futures_alternate_like_the_training_events(expert: Expert):
    [sequence] = alternating_sequences(1, 9)
    past = sequence.past.slice(0, 41)  # ends with type 0, after which an interval is short
    [futures] = sample_futures(
        ExpertRollout(expert, [SequenceState.after(expert.memory, past)], 50),
        FutureSettings(50, 60.0, 20),
        [np.random.default_rng(0)],
    )
    shown = futures.types[futures.is_within]
    expected = np.broadcast_to((np.arange(futures.types.shape[1]) + 1) % 2, futures.types.shape)
    assert (shown == expected[futures.is_within]).mean() > 0.9
    # gamma distributions of shape 20, scales 0.1 and 1
    assert np.median(futures.intervals[:, 0]) == pytest.approx(2.0, rel=0.15)
    assert np.median(futures.intervals[:, 1]) == pytest.approx(20.0, rel=0.15)
    ticks = futures.intervals / TICK
    assert np.allclose(ticks, np.rint(ticks))
    assert np.allclose(futures.type_probabilities.sum(axis=-1), 1.0)


def test_futures_of_several_origins_are_those_of_each_origin_alone(expert: Expert):
    settings = FutureSettings(6, 30.0, 20)
    [sequence] = alternating_sequences(1, 9)
    states = [
        SequenceState.after(expert.memory, sequence.past.slice(0, end)) for end in (12, 41, 42)
    ]

    def generators() -> list[np.random.Generator]:
        return [np.random.default_rng(seed) for seed in range(3)]

    together = sample_futures(ExpertRollout(expert, states, 6), settings, generators())
    lengths = set()
    for state, generator, actual in zip(states, generators(), together, strict=True):
        [alone] = sample_futures(ExpertRollout(expert, [state], 6), settings, [generator])
        np.testing.assert_allclose(actual.intervals, alone.intervals, rtol=1e-5)
        np.testing.assert_array_equal(actual.types, alone.types)
        np.testing.assert_array_equal(actual.is_within, alone.is_within)
        np.testing.assert_allclose(actual.nll, alone.nll, rtol=1e-3, atol=1e-3)
        lengths.add(actual.types.shape[1])
    assert len(lengths) > 1  # an origin ends when its own futures do


def test_a_folder_gives_back_the_expert(expert: Expert, forecasts: ExpertForecasts, tmp_path):
    expert.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert describe_model(str(tmp_path)).kind == ModelKind.EXPERT
    loaded = load_expert(str(tmp_path))
    assert loaded.memory == expert.memory
    assert loaded.tick == expert.tick
    for before, after in zip(expert.networks, loaded.networks, strict=True):
        for name, tensor in before.state_dict().items():
            assert torch.equal(after.state_dict()[name], tensor)


def test_a_damaged_folder_is_refused(expert: Expert, tmp_path):
    expert.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    settings = json.loads((tmp_path / EXPERT_FILE).read_text())
    settings["memory"]["has_texts"] = not settings["memory"]["has_texts"]
    (tmp_path / EXPERT_FILE).write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="columns"):
        load_expert(str(tmp_path))
    expert.save(tmp_path)
    content = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_expert(str(tmp_path))
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelError, match="missing"):
        load_expert(str(tmp_path))
