"""The model: Qwen2.5-VL reading and writing events."""

import logging

from mmtpp.compat.torch_hooks import PYTREE_LOGGER

# transformers imports torchao where it is installed, which tells of kernels that nobody here calls
for _name in ("torchao", PYTREE_LOGGER):
    logging.getLogger(_name).setLevel(logging.ERROR)
