"""A small trained expert, of the tests of experts."""

from tests.unit.expert.conftest import expert, finished, small

__all__ = ["expert", "finished", "small"]
