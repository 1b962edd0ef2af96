"""Errors cross processes: every leaf survives pickling with all its parts."""

import pickle

import cloudpickle
import pytest

from mmtpp.core import errors


def test_messages_have_no_addresses_of_objects():
    raised = "Caused by NewConnectionError('<urllib3.HTTPConnection object at 0x7f3a5C0>: refused')"
    error = errors.StorageError(f"cannot read the file: {raised}", where="<Socket at 0x1>")
    assert str(error) == (
        "cannot read the file: Caused by NewConnectionError('<urllib3.HTTPConnection object>: "
        "refused')\n  where: <Socket>"
    )
    assert errors.error_from_json(errors.error_to_json(error)).problem == error.problem


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
