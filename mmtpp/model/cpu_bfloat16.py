"""Products in bfloat16 on processors that have no such arithmetic: computed in float32.

There torch multiplies bfloat16 matrices without vector instructions, so slowly that the 3B never
ends a step. In this way it does (``make scale-3b``), and a product is rounded only once. Serves
tests and proofs of scale: who trains, trains on GPUs.
"""

import logging

import torch

from mmtpp.compat.torch_hooks import cpu_has_bfloat16

logger = logging.getLogger(__name__)

_installed: list[torch.library.Library] = []  # torch drops what nobody holds


def adapt_to_processor(device: torch.device, dtype: torch.dtype) -> None:
    """Call ``use_float32_products`` where a model in bfloat16 meets a processor without it."""
    has_bfloat16 = cpu_has_bfloat16()
    if dtype == torch.bfloat16 and device.type == "cpu" and not has_bfloat16:
        logger.info("this processor has no bfloat16: products are computed in float32")
        use_float32_products()


def use_float32_products() -> None:
    """Let this process compute products of bfloat16 matrices on the CPU in float32, for good."""
    if _installed:
        return
    library = torch.library.Library("aten", "IMPL")
    library.impl("mm", _mm, "CPU")
    library.impl("addmm", _addmm, "CPU")
    library.impl("bmm", _bmm, "CPU")
    _installed.append(library)


# Other types pass through unchanged. The kernels with `out` are torch's own and not replaced.


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
