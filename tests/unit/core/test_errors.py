"""Errors cross processes: every leaf survives pickling with all its parts."""

import pickle

import cloudpickle
import pytest

from mmtpp.core import errors


def _leaves(kind: type) -> list[type]:
    return [kind, *[leaf for child in kind.__subclasses__() for leaf in _leaves(child)]]


@pytest.mark.parametrize("leaf", _leaves(errors.MmtppError), ids=lambda leaf: leaf.__name__)
@pytest.mark.parametrize("module", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_every_error_survives_pickling(leaf: type, module):
    error = leaf("it broke", where="row 3", cause="a typo", setting="lora.rank = 1")
    copy = module.loads(module.dumps(error))
    assert type(copy) is leaf
    assert str(copy) == str(error)
    assert "row 3" in str(copy)
    assert "lora.rank = 1" in str(copy)
