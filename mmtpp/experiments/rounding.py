"""Numbers with fewer bits, simulated in float32.

Source: Tang, Li and Zou, "A Convergence Analysis of Adaptive Optimizers under Floating-point
    Quantization" (arXiv 2510.21314): the relative error of M mantissa bits is at most 2^-(M+1).
"""

import torch

from mmtpp.config.schema import RoundingSection

_CHUNK = 2**22  # elements rounded at once, which take ten times their memory


def round_(
    values: torch.Tensor, rounding: RoundingSection, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Round in place to the nearest number of a format, or stochastically to a neighbour.

    The format is IEEE 754's with subnormal numbers and without infinities: values that are too
    large become the largest number, as in float8. A NaN stays a NaN.

    Args:
        values: Contiguous float32 tensor.
        rounding: Format and mode.
        generator: Random generator of the mode ``stochastic``, on the device of ``values``.
    """
    if not rounding.changes_nothing:
        for part in values.view(-1).split(_CHUNK):
            _round_part(part, rounding, generator)
    return values


def _round_part(
    values: torch.Tensor, rounding: RoundingSection, generator: torch.Generator | None
) -> None:
    mantissa_bits, exponent_bits = rounding.mantissa_bits, rounding.exponent_bits
    least = 2 - 2 ** (exponent_bits - 1)  # exponent of the smallest normal number
    exact = values.double()  # the steps between the smallest numbers are below float32's
    exponents = (torch.frexp(exact).exponent - 1).clamp(min=least)
    step = torch.ldexp(torch.ones_like(exact), exponents - mantissa_bits)
    steps = exact / step
    if rounding.mode == "nearest":
        steps = steps.round()
    else:
        uniform = torch.rand(
            steps.shape, generator=generator, device=steps.device, dtype=torch.float64
        )
        steps = (steps + uniform).floor()
    largest = (2 - 2.0**-mantissa_bits) * 2.0 ** (2 ** (exponent_bits - 1) - 1)
    values.copy_((steps * step).clamp(-largest, largest))
