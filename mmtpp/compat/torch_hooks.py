"""Private parts of torch, checked on torch 2.13.0.

torch is imported inside the functions: ``transformers_hooks.quiet_libraries`` needs the name of a
logger before anything imports torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Logger of torch 2.13.0 that warns about classes which torchao registers and nothing here uses.
PYTREE_LOGGER = "torch.utils._pytree"


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16 matrices.

    Uses ``torch.ops.mkldnn._is_mkldnn_bf16_supported``. Checked on torch 2.13.0.
    """
    import torch

    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def storage_id(storage: "torch.UntypedStorage") -> int:
    """Identity of a storage while it lives, also on the meta device, where all addresses are 0.

    Uses ``UntypedStorage._cdata``. Checked on torch 2.13.0.
    """
    return storage._cdata
