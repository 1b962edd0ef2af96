"""Steepest descent: which step of norm 1 lowers the loss most, for several norms.

To first order a step ``-D`` lowers the loss by the inner product of the gradient ``G`` and ``D``.
Among all ``D`` of norm 1, the directions below maximise this product. The maximum is the dual norm
of ``G``.

Source: Li, Tang and Zou, "The Implicit Bias of Steepest Descent with Mini-batch Stochastic
    Gradient", arXiv 2602.11557.
"""

import math

import torch

from mmtpp.config.optimizer_settings import Exponent, Geometry


def steepest_direction(gradient: torch.Tensor, geometry: Geometry, p: Exponent) -> torch.Tensor:
    """The direction of steepest ascent.

    Args:
        gradient: Any shape; for ``schatten`` (rows, columns).
        geometry: Whether the norm is the p-norm of the entries or of the singular values.
        p: Exponent of the norm, at least 1.

    Returns:
        Tensor of norm 1 with the shape and type of ``gradient``; 0 for a gradient of 0.
    """
    if geometry == "entrywise":
        return _unit_dual(gradient, p)
    computed = gradient.to(torch.promote_types(gradient.dtype, torch.float32))  # no half SVD
    left, values, right = torch.linalg.svd(computed, full_matrices=False)
    # Singular values that are 0 but for rounding have no direction.
    values = torch.where(
        values > values.amax() * max(gradient.shape) * torch.finfo(values.dtype).eps, values, 0
    )
    return ((left * _unit_dual(values, p)) @ right).to(gradient.dtype)


def rms_scale(direction: torch.Tensor) -> torch.Tensor:
    """Factor that gives a direction a root mean square of 0.2, about that of AdamW's steps.

    Source: Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982), section 2.2.
    """
    return 0.2 * math.sqrt(direction.numel()) / direction.norm().clamp(min=1e-12)


def _unit_dual(values: torch.Tensor, p: Exponent) -> torch.Tensor:
    """The tensor of p-norm 1 whose inner product with ``values`` is largest."""
    if p == "inf":
        return values.sign()
    largest = values.abs().amax()
    if largest == 0:
        return torch.zeros_like(values)
    if p == 1:  # the first of the largest entries
        first = values.abs().flatten().argmax()
        direction = torch.zeros_like(values).flatten()
        direction[first] = values.flatten()[first].sign()
        return direction.view_as(values)
    conjugate = p / (p - 1)
    powers = (values.abs() / largest) ** (conjugate - 1)
    norm = (powers**p).sum() ** (1 / p)  # powers**p = (values / largest) ** conjugate
    return values.sign() * powers / norm
