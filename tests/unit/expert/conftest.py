"""A small trained expert."""

from tests.helpers.small_experts import expert, finished, small

__all__ = ["expert", "finished", "small"]
