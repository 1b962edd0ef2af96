"""The classifier that mini-batch steepest descent converges to on separable data.

The setting is that of arXiv 2602.11557: a linear model of several classes with logistic loss. In
the limit, full-batch steepest descent in a norm maximises the margin for that norm. This module
measures how close mini-batches come, with momentum and with variance reduction. The largest margin
is computed independently. Axes: N samples, C classes, D features, M margins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls
from scipy.special import softmax

from mmtpp.config.optimizer_settings import Exponent, Geometry
from mmtpp.experiments.steepest_descent import steepest_direction

Matrix = NDArray[np.float64]
NUM_CLASSES, NUM_FEATURES, NUM_SAMPLES = 4, 16, 40
STEPS = 20_000
SHOWN = (STEPS // 64, STEPS // 16, STEPS // 4, STEPS)
REACH = 40.0  # margin of the logits at the last step for the largest margin: well separated
BATCHES = (1, 5, 20, NUM_SAMPLES)
NORMS: dict[str, tuple[Geometry, Exponent]] = {
    "sign": ("entrywise", "inf"),
    "Frobenius": ("entrywise", 2.0),
    "spectral": ("schatten", "inf"),
}
EXAMPLES = ("sign", "Frobenius")  # norms that ``predicted`` covers
METHODS: dict[str, tuple[float, str]] = {
    "no momentum": (0.0, ""),
    "momentum 0.9": (0.9, ""),
    "momentum 0.99": (0.99, ""),
    "SVRG": (0.0, "svrg"),
    "STORM 0.9": (0.9, "storm"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Samples that a linear model can separate.

    Attributes:
        features_ND: Features of the samples.
        classes_N: Classes of the samples.
    """

    features_ND: Matrix
    classes_N: NDArray[np.int64]

    def comparisons(self) -> Matrix:
        """(M, C, D) comparisons; the inner product of a model and a comparison is a margin.

        A margin is the logit of the right class minus that of a wrong class.
        """
        num_classes = int(self.classes_N.max()) + 1
        comparisons = []
        for features_D, right in zip(self.features_ND, self.classes_N, strict=True):
            for wrong in range(num_classes):
                if wrong != right:
                    comparison = np.zeros((num_classes, len(features_D)))
                    comparison[right], comparison[wrong] = features_D, -features_D
                    comparisons.append(comparison)
        return np.stack(comparisons)

    def gradient(self, model_CD: Matrix, chosen: NDArray[np.int64]) -> Matrix:
        """(C, D) gradient of the mean loss of some samples."""
        features, classes = self.features_ND[chosen], self.classes_N[chosen]
        odds = softmax(features @ model_CD.T, axis=1)
        # 1 minus the odds of the right class rounds to 0 from a margin of 37
        odds[np.arange(len(chosen)), classes] = 0
        odds[np.arange(len(chosen)), classes] = -odds.sum(axis=1)
        return odds.T @ features / len(chosen)


def random_problem(seed: int) -> Problem:
    """Draw samples around one centre per class until they are separable."""
    rng = np.random.default_rng(seed)
    while True:
        centres = rng.standard_normal((NUM_CLASSES, NUM_FEATURES))
        classes = np.arange(NUM_SAMPLES) % NUM_CLASSES
        spread = rng.standard_normal((NUM_SAMPLES, NUM_FEATURES))
        problem = Problem(centres[classes] + spread, classes)
        if largest_margin(problem, "sign")[0] > 1e-3:
            return problem


def norm_of(model_CD: Matrix, norm: str) -> float:
    """Norm of a model in a geometry; a step of that geometry has norm 1 or less."""
    if norm == "sign":
        return float(np.abs(model_CD).max())
    return float(np.linalg.norm(model_CD, 2 if norm == "spectral" else "fro"))


def largest_margin(problem: Problem, norm: str) -> tuple[float, float]:
    """Lower and upper bound of the maximum margin over models of norm 1.

    The maximum margin equals the smallest dual norm of a convex combination of the comparisons. It
    is computed by a linear programme for signs, by a nearest point for the Frobenius norm, and by
    an ascent for the spectral norm, whose dual is the sum of the singular values.
    """
    comparisons = problem.comparisons()
    flat = comparisons.reshape(len(comparisons), -1)
    if norm == "sign":
        cost = np.append(np.zeros(flat.shape[1]), -1.0)
        solution = linprog(
            cost,
            A_ub=np.column_stack([-flat, np.ones(len(flat))]),
            b_ub=np.zeros(len(flat)),
            bounds=[(-1, 1)] * flat.shape[1] + [(None, None)],
        )
        return -solution.fun, -solution.fun
    if norm == "Frobenius":
        weight = 1e4  # weight of the condition that the shares sum to 1
        shares, _ = nnls(
            np.vstack([flat.T, np.full(len(flat), weight)]),
            np.append(np.zeros(flat.shape[1]), weight),
            maxiter=100 * len(flat),
        )
        nearest = shares @ flat / shares.sum()
        high = float(np.linalg.norm(nearest))
        return float((flat @ nearest).min() / high), high
    return _largest_spectral(comparisons)


def _largest_spectral(comparisons: Matrix) -> tuple[float, float]:
    """Accelerated ascent of the smoothed smallest margin in the unit ball.

    The smallest margin of each iterate, a model of norm 1 or less, is a lower bound. The iterate
    also weights the comparisons; the dual norm of their weighted mean is an upper bound.
    """
    flat = comparisons.reshape(len(comparisons), -1)
    curvature = np.linalg.norm(flat, 2) ** 2
    model = np.zeros(comparisons.shape[1:])
    low, high = 0.0, float(np.linalg.svd(comparisons, compute_uv=False).sum(axis=1).min())
    for smooth in high * np.array([1e-1, 1e-2, 1e-3, 1e-4]):
        ahead, momentum = model, 1.0
        for _ in range(4000):
            odds = softmax(-(flat @ ahead.ravel()) / smooth)
            mixed = np.einsum("m,mcd->cd", odds, comparisons)
            high = min(high, float(np.linalg.svd(mixed, compute_uv=False).sum()))
            left, values, right = np.linalg.svd(
                ahead + smooth / curvature * mixed, full_matrices=False
            )
            after = (left * values.clip(max=1)) @ right
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = after + (momentum - 1) / following * (after - model)
            model, momentum = after, following
            low = max(low, float((flat @ model.ravel()).min()))
    return low, high


def descend(
    problem: Problem, norm: str, method: str, batch: int, *, seed: int, scale: float
) -> Iterator[tuple[int, Matrix]]:
    """Steepest descent with steps of ``scale / sqrt(t)``; yields the models at ``SHOWN``."""
    rng = np.random.default_rng(seed)
    momentum, reduction = METHODS[method]
    num_samples = len(problem.classes_N)
    all_samples = np.arange(num_samples)
    num_classes = int(problem.classes_N.max()) + 1
    model = np.zeros((num_classes, problem.features_ND.shape[1]))
    average = np.zeros_like(model)
    before, snapshot, full = model, model, model
    order: NDArray[np.int64] = np.zeros(0, np.int64)
    for step in range(1, STEPS + 1):
        if len(order) < batch:  # a new epoch has every sample once, in a new order
            order = rng.permutation(num_samples)
            snapshot, full = model, problem.gradient(model, all_samples)
        chosen, order = order[:batch], order[batch:]
        gradient = problem.gradient(model, chosen)
        if reduction == "svrg":
            average = gradient - problem.gradient(snapshot, chosen) + full
        elif reduction == "storm":
            average = gradient + momentum * (average - problem.gradient(before, chosen))
        else:
            average = momentum * average + (1 - momentum) * gradient
        before = model
        direction = steepest_direction(torch.tensor(average), *NORMS[norm]).numpy()
        model = model - scale / np.sqrt(step) * direction
        if step in SHOWN:
            yield step, model


def compare(seed: int, norm: str) -> list[dict[str, Any]]:
    """Run every method and batch size on one problem in one geometry."""
    torch.set_num_threads(1)
    problem = random_problem(seed)
    comparisons = problem.comparisons()
    low, high = largest_margin(problem, norm)
    scale = REACH / high / (2 * np.sqrt(STEPS))  # the steps add up to this times 2 sqrt(STEPS)
    records = []
    for method in METHODS:
        for batch in BATCHES:
            if batch == NUM_SAMPLES and METHODS[method][1]:
                continue  # a full batch has no variance
            for step, model in descend(problem, norm, method, batch, seed=seed, scale=scale):
                margin = float(np.einsum("mcd,cd->m", comparisons, model).min())
                records.append(
                    {
                        "norm": norm,
                        "method": method,
                        "batch": batch,
                        "seed": seed,
                        "step": step,
                        "share": margin / norm_of(model, norm) / high,
                        "low": low / high,
                    }
                )
    return records


def counterexample() -> Problem:
    """Two separable classes, each with three equal samples and one that points away from them.

    A step on one sample has norm 1 for any loss. Without momentum the model is therefore the sum of
    the samples' directions, in which the three equal samples always outvote the fourth.
    """
    features = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-0.6, 0.8]])
    # the mirrored samples are of the other class
    return Problem(np.vstack([features, -features]), np.repeat([0, 1], 4))


def predicted(norm: str) -> Matrix:
    """Direction that single samples without momentum converge to, computed by hand.

    It is the mean of the samples' directions. Row 1 of the model is the negative of row 0. A sample
    of class 0 adds its signs to row 0 (x1: (1, 0), x4: (-1, 1)), or itself divided by its norm; a
    mirrored sample adds the same.
    """
    row = np.array([3 - 1, 1.0]) if norm == "sign" else np.array([3 - 0.6, 0.8])
    return np.stack([row, -row])


def run_counterexample(norm: str) -> list[dict[str, Any]]:
    """Measure the cosine with the prediction, and the margin as a share of the largest."""
    torch.set_num_threads(1)
    problem = counterexample()
    comparisons = problem.comparisons()
    high = largest_margin(problem, norm)[1]
    scale = REACH / high / (2 * np.sqrt(STEPS))
    records = []
    for method, batch in (
        ("no momentum", 1),
        ("momentum 0.99", 1),
        ("SVRG", 1),
        ("no momentum", 8),
    ):
        *_, (_, model) = descend(problem, norm, method, batch, seed=0, scale=scale)
        expected = predicted(norm)
        cosine = float((model * expected).sum())
        cosine /= float(np.linalg.norm(model) * np.linalg.norm(expected))
        margin = float(np.einsum("mcd,cd->m", comparisons, model).min())
        records.append(
            {
                "norm": norm,
                "method": method,
                "batch": batch,
                "cosine": cosine,
                "share": margin / norm_of(model, norm) / high,
            }
        )
    return records
