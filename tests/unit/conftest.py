"""What several files of these tests load sweeps with."""

import itertools

import pytest

from tests.unit.sweeps import HEAD
from tune.load import load_sweep


@pytest.fixture
def sweep_of(tmp_path):
    """Loads a sweep from text after ``HEAD``."""
    names = itertools.count()

    def load(text: str, *assignments: str):
        path = tmp_path / f"{next(names)}.toml"
        path.write_text(HEAD + text)
        return load_sweep(path, assignments)

    return load
