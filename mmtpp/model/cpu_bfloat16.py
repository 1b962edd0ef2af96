"""Products of bfloat16 matrices in float32, on processors without bfloat16 arithmetic.

On such processors torch multiplies bfloat16 matrices without vector instructions, so slowly that
the 3B model does not complete a step. In float32 the step completes (``make scale-3b``), and each
product is rounded only once. This is for tests and measurements of scale; models are trained on
GPUs.
"""

import logging

import torch

from mmtpp.compat.torch_hooks import cpu_has_bfloat16

logger = logging.getLogger(__name__)

_installed: list[torch.library.Library] = []  # torch removes a library without references


def adapt_to_processor(device: torch.device, dtype: torch.dtype) -> None:
    """Use float32 products for a bfloat16 model on a processor without bfloat16 arithmetic."""
    has_bfloat16 = cpu_has_bfloat16()
    if dtype == torch.bfloat16 and device.type == "cpu" and not has_bfloat16:
        logger.info("this processor has no bfloat16 arithmetic: products are computed in float32")
        use_float32_products()


def use_float32_products() -> None:
    """Compute products of bfloat16 matrices on the CPU in float32 until this process ends."""
    if _installed:
        return
    library = torch.library.Library("aten", "IMPL")
    library.impl("mm", _mm, "CPU")
    library.impl("addmm", _addmm, "CPU")
    library.impl("bmm", _bmm, "CPU")
    _installed.append(library)


# Matrices of other types are unchanged. The kernels with `out` are torch's and are not replaced.


def _mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    out = _out(left, left.shape[0], right.shape[1])
    torch.mm(_wide(left), _wide(right), out=out)
    return out.to(left.dtype)


def _addmm(
    added: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> torch.Tensor:
    out = _out(left, left.shape[0], right.shape[1])
    torch.addmm(_wide(added), _wide(left), _wide(right), beta=beta, alpha=alpha, out=out)
    return out.to(left.dtype)


def _bmm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    out = _out(left, left.shape[0], left.shape[1], right.shape[2])
    torch.bmm(_wide(left), _wide(right), out=out)
    return out.to(left.dtype)


def _wide(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.float() if matrix.dtype == torch.bfloat16 else matrix


def _out(like: torch.Tensor, *shape: int) -> torch.Tensor:
    dtype = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
    return torch.empty(shape, dtype=dtype, device=like.device)
