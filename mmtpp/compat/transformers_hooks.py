"""Private parts of transformers, checked on transformers 5.23.0."""

from typing import Any


def set_attention(config: Any, implementation: str) -> None:
    """Choose the attention kernel of a model that is built from a configuration.

    Uses ``PretrainedConfig._attn_implementation``: the public ``set_attn_implementation`` is a
    method of a model that already exists. Checked on transformers 5.23.0.

    Args:
        config: Configuration of the model.
        implementation: Name of a registered attention function.
    """
    config._attn_implementation = implementation
