"""Private parts of transformers, checked on transformers 5.23.0."""

import logging
import warnings
from typing import Any

from mmtpp.compat.torch_hooks import PYTREE_LOGGER


def quiet_libraries() -> None:
    """Silence warnings about code of other libraries that nothing here uses.

    Call it before anything imports transformers, which imports an installed torchao: torchao warns
    about kernels that it cannot load, and torch about torchao's classes. peft reads the
    property ``is_gradient_checkpointing``, which transformers 5.23.0 deprecates.
    """
    for name in ("torchao", PYTREE_LOGGER):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
    )


def set_attention(config: Any, implementation: str) -> None:
    """Choose the attention kernel of a model that is built from a configuration.

    Uses ``PretrainedConfig._attn_implementation``: the public ``set_attn_implementation`` is a
    method of a model that already exists. Checked on transformers 5.23.0.

    Args:
        config: Configuration of the model.
        implementation: Name of a registered attention function.
    """
    config._attn_implementation = implementation
