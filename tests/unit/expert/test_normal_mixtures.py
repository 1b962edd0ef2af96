"""Cumulative probabilities of mixtures of normal distributions, against SciPy."""

import numpy as np
import pytest
import torch
from scipy import stats

from mmtpp.expert.normal_mixtures import NormalMixtures, mean_cdf

EDGES = torch.linspace(-4.0, 4.0, 300)
ALL = torch.arange(300)


def _mixtures(least_width: float, seed: int) -> NormalMixtures:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = 0.9 * normal(40, 6).softmax(-1)  # the others' weight is that of an atom
    return NormalMixtures(weights, 2 * normal(40, 6), least_width + normal(40, 6).abs() / 2)


def _expected(mixtures: NormalMixtures) -> np.ndarray:
    below = stats.norm.cdf(
        EDGES.double().numpy()[None, None],
        mixtures.means.double().numpy()[..., None],
        mixtures.widths.double().numpy()[..., None],
    )
    return (mixtures.weights.double().numpy()[..., None] * below).sum(axis=1)


@pytest.mark.parametrize(("least_width", "tolerance"), [(1e-3, 1e-6), (0.1, 3e-5), (0.5, 3e-5)])
def test_sums_and_their_mean_are_those_of_scipy(least_width: float, tolerance: float):
    models = [_mixtures(least_width, seed) for seed in range(3)]
    mean, own = mean_cdf(models, EDGES, ALL)
    for model, actual in zip(models, own, strict=True):
        assert actual.numpy() == pytest.approx(_expected(model), abs=tolerance)
    expected = np.mean([_expected(model) for model in models], axis=0)
    assert mean.numpy() == pytest.approx(expected, abs=tolerance)


def test_a_narrow_component_at_the_first_edge_is_integrated():
    """Densities rise within a node's distance from the edge, where splines are least exact."""
    means = torch.linspace(-4.2, -3.8, 40)[:, None]
    mixtures = NormalMixtures(torch.ones(40, 1), means, torch.full((40, 1), 0.08))
    [actual] = mean_cdf([mixtures], EDGES, ALL)[1]
    assert actual.numpy() == pytest.approx(_expected(mixtures), abs=5e-5)


@pytest.mark.parametrize("width", [0.05, 0.08])
def test_components_at_one_place_do_not_add_up_their_errors(width: float):
    means = torch.linspace(-1.0, 1.0, 40)[:, None].expand(-1, 32)
    mixtures = NormalMixtures(torch.full((40, 32), 1 / 32), means, torch.full((40, 32), width))
    mean, _ = mean_cdf([mixtures], EDGES, ALL)
    assert mean.numpy() == pytest.approx(_expected(mixtures), abs=5e-5)
    assert (mean.diff(dim=1) > -1e-5).all()


def test_small_probabilities_are_exact_if_asked_for():
    mixtures = _mixtures(0.5, 0)
    [actual] = mean_cdf([mixtures], EDGES, ALL, is_exact=True)[1]
    assert actual.numpy() == pytest.approx(_expected(mixtures), abs=5e-7)


def test_edges_without_a_span_have_the_probability_below_them():
    models = [_mixtures(0.5, 0)]
    mean, _ = mean_cdf(models, torch.zeros(4), torch.arange(4))
    assert mean.numpy() == pytest.approx(mean[:, :1].expand(-1, 4).numpy())
    below = stats.norm.cdf(0.0, models[0].means.numpy(), models[0].widths.numpy())
    expected = (models[0].weights.numpy() * below).sum(axis=1)
    assert mean[:, 0].numpy() == pytest.approx(expected, abs=1e-6)
