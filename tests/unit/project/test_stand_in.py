"""Stand-ins refuse attributes that their class does not have."""

import pytest

from mmtpp.model.batch import Batcher
from mmtpp.train.ranks.watchdog import Watchdog
from mmtpp.train.worker_inputs import WorkerInputs
from tests.helpers.stand_in import stand_in


def test_fields_methods_and_assigned_attributes_are_known():
    assert stand_in(WorkerInputs, precision="float32").precision == "float32"
    assert stand_in(Batcher, device="cpu").device == "cpu"
    assert callable(stand_in(Watchdog, stop=lambda: None).stop)


@pytest.mark.parametrize("kind", [WorkerInputs, Batcher, Watchdog])
def test_another_attribute_is_refused(kind: type):
    with pytest.raises(AttributeError, match=f"{kind.__name__} has no attribute renamed"):
        stand_in(kind, renamed=1)
