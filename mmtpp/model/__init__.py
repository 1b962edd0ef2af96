"""The model: Qwen2.5-VL reading and writing events."""

import logging

# transformers imports torchao where it is installed, which tells of kernels that nobody here calls
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
