"""Steepest descent: which step of norm 1 lowers the loss most, for several norms.

To first order a step ``-D`` lowers the loss by the inner product of gradient ``G`` and ``D``. Among
all ``D`` of norm 1 it is largest for the directions below, and is then the dual norm of ``G``.

Source: Li, Tang and Zou, "The Implicit Bias of Steepest Descent with Mini-batch Stochastic
    Gradient", arXiv 2602.11557; Jordan et al., "Muon" (2024), for the Newton-Schulz iteration.
"""

import math
from typing import Literal

import torch

Geometry = Literal["entrywise", "schatten"]
Exponent = float | Literal["inf"]

# the quintic whose fifth iterate takes singular values from 0.002 to 1 to between 0.68 and 1.21
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


def steepest_direction(gradient: torch.Tensor, geometry: Geometry, p: Exponent) -> torch.Tensor:
    """The direction of steepest ascent.

    Args:
        gradient: of any shape; for ``schatten`` (rows, columns).
        geometry: the norm is the p-norm of the entries, or of the singular values.
        p: its exponent, 1 or more.

    Returns:
        Of the shape and type of ``gradient`` and of norm 1; 0 for a gradient of 0.
    """
    if geometry == "entrywise":
        return _unit_dual(gradient, p)
    computed = gradient.to(torch.promote_types(gradient.dtype, torch.float32))  # no half SVD
    left, values, right = torch.linalg.svd(computed, full_matrices=False)
    # singular values of what is not there have no direction
    values = torch.where(
        values > values.amax() * max(gradient.shape) * torch.finfo(values.dtype).eps, values, 0
    )
    return ((left * _unit_dual(values, p)) @ right).to(gradient.dtype)


def _unit_dual(values: torch.Tensor, p: Exponent) -> torch.Tensor:
    """The tensor of p-norm 1 whose inner product with ``values`` is largest."""
    if p == "inf":
        return values.sign()
    largest = values.abs().amax()
    if largest == 0:
        return torch.zeros_like(values)
    if p == 1:  # one of the largest entries; the first, where there are several
        first = values.abs().flatten().argmax()
        direction = torch.zeros_like(values).flatten()
        direction[first] = values.flatten()[first].sign()
        return direction.view_as(values)
    conjugate = p / (p - 1)
    powers = (values.abs() / largest) ** (conjugate - 1)
    norm = (powers**p).sum() ** (1 / p)  # powers**p = (values / largest) ** conjugate
    return values.sign() * powers / norm


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """All singular values made about 1, without computing them.

    In bfloat16 on GPUs, where that is what the iteration was chosen for; in float32 on CPUs, which
    have no fast bfloat16.

    Args:
        matrix: (rows, columns).

    Returns:
        The same shape and type; singular values of 0.68 to 1.21, see ``_NEWTON_SCHULZ``.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    iterate = wide.bfloat16() if matrix.device.type == "cuda" else wide.float()
    iterate = iterate / iterate.norm().clamp(min=1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = iterate @ iterate.T
        iterate = a * iterate + (b * gram + c * gram @ gram) @ iterate
    return (iterate if wide is matrix else iterate.T).to(matrix.dtype)


def rms_scale(shape: torch.Size, direction: torch.Tensor | None = None) -> float | torch.Tensor:
    """Factor that gives a direction a root mean square of 0.2, about that of AdamW's steps.

    Args:
        shape: of the tensor.
        direction: what is scaled; None for a matrix whose singular values are all 1.

    Source: Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982), section 2.2.
    """
    if direction is None:
        return 0.2 * math.sqrt(max(shape))
    return 0.2 * math.sqrt(shape.numel()) / direction.norm().clamp(min=1e-12)
