"""The devices that workers compute on."""

import pytest

from mmtpp.core.errors import ClusterError
from mmtpp.runtime.hardware import check_same_gpus


def test_different_gpus_are_refused_by_name_and_rank():
    check_same_gpus(["NVIDIA L4"] * 4, {})
    with pytest.raises(ClusterError) as caught:
        check_same_gpus(["NVIDIA L4", "NVIDIA A100-SXM4-80GB", "NVIDIA L4"], {"role": "train"})
    message = str(caught.value)
    assert "NVIDIA A100-SXM4-80GB: rank 1; NVIDIA L4: rank 0, 2" in message
    assert "training.machine_labels = {'role': 'train'}" in message
