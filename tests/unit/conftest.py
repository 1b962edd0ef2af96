"""Fixtures that the tests of several packages share."""

import itertools

import pytest

from mmtpp.sweep.load_sweep import load_sweep
from tests.unit.sweep.sweeps import HEAD


@pytest.fixture
def sweep_of(tmp_path):
    """Loads a sweep from text after ``HEAD``."""
    names = itertools.count()

    def load(text: str, *assignments: str):
        path = tmp_path / f"{next(names)}.toml"
        path.write_text(HEAD + text)
        return load_sweep(path, assignments)

    return load
