"""Base models of several families, extended to read and write events; vocabulary and adapters."""

import logging

from mmtpp.compat.torch_hooks import PYTREE_LOGGER

# transformers imports an installed torchao, which warns about kernels that are not used here
for _name in ("torchao", PYTREE_LOGGER):
    logging.getLogger(_name).setLevel(logging.ERROR)
