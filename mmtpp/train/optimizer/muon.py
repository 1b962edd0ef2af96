"""Muon's direction: the momentum matrix, orthogonalised by Newton-Schulz iterations.

Source: Jordan et al., "Muon" (2024).
"""

import math

import torch

# the quintic whose fifth iterate takes singular values from 0.002 to 1 to between 0.68 and 1.21
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with all singular values brought close to 1, without an SVD.

    Computes in bfloat16 on GPUs, the precision the iteration was designed for, and in float32 on
    CPUs, which have no fast bfloat16.

    Args:
        matrix: (rows, columns).

    Returns:
        Matrix of the same shape and type with singular values of 0.68 to 1.21.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    iterate = wide.bfloat16() if matrix.device.type == "cuda" else wide.float()
    iterate = iterate / iterate.norm().clamp(min=1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = iterate @ iterate.T
        iterate = a * iterate + (b * gram + c * gram @ gram) @ iterate
    return (iterate if wide is matrix else iterate.T).to(matrix.dtype)


def orthogonal_rms_scale(shape: torch.Size) -> float:
    """Factor that gives a matrix with singular values of 1 a root mean square of 0.2.

    0.2 is about the root mean square of AdamW's steps.

    Source: Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982), section 2.2.
    """
    return 0.2 * math.sqrt(max(shape))
