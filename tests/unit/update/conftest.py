"""A small trained expert, of the tests of experts."""

from tests.helpers.small_experts import expert, finished, small

__all__ = ["expert", "finished", "small"]
