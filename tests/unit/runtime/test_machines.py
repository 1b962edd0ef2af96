"""When a job stops waiting for machines, by what the autoscaler has reported."""

from typing import Any

import pytest
from ray.core.generated import autoscaler_pb2

from mmtpp.runtime.machines import ResourceDemand, _may_become_free, _reason_to_give_up

PATIENCE_S = 600.0
ON_GPU = ResourceDemand("workers", 2, {"GPU": 1.0}, {"role": "train"}, "training.num_workers = 2")


def _status(version: int = 1) -> Any:
    status = autoscaler_pb2.GetClusterStatusReply()  # pyright: ignore[reportAttributeAccessIssue]
    status.autoscaling_state.autoscaler_state_version = version
    return status


@pytest.mark.parametrize(
    ("version", "waited_s", "refused_s", "reason"),
    [
        (1, 599.0, 0.0, ""),
        (1, 601.0, 0.0, "did not join within 601 s"),
        (1, 20.0, 14.0, ""),  # as long as an idle machine is being removed
        (1, 20.0, 16.0, "has no machines for them"),
        (0, 29.0, 0.0, ""),  # without an autoscaler: for machines that are just starting
        (0, 31.0, 0.0, "has no autoscaler"),
    ],
)
def test_a_job_gives_up_for_the_first_reason(
    version: int, waited_s: float, refused_s: float, reason: str
):
    given = _reason_to_give_up(_status(version), waited_s, refused_s, PATIENCE_S)
    assert (given is not None) == bool(reason)
    assert given is None or reason in given[0]


def test_without_an_autoscaler_patience_may_be_shorter_than_the_time_to_join():
    assert _reason_to_give_up(_status(0), 6.0, 0.0, 5.0) is not None


def _add_node(status: Any, labels: dict[str, str], available: float) -> Any:
    node = status.cluster_resource_state.node_states.add()
    node.labels.update(labels)
    node.total_resources["GPU"] = 4.0
    node.available_resources["GPU"] = available
    return status


@pytest.mark.parametrize(
    ("labels", "available", "is_in_use"),
    [
        ({"role": "train", "zone": "a"}, 3.0, True),
        ({"role": "train"}, 4.0, False),
        ({"role": "data"}, 0.0, False),  # another job holds machines that do not suit this one
    ],
)
def test_machines_in_use_may_become_free(labels: dict[str, str], available: float, is_in_use: bool):
    assert _may_become_free(ON_GPU, _add_node(_status(), labels, available)) == is_in_use


def test_a_machine_that_is_being_launched_may_become_free():
    requested, starting = _status(), _status()
    requested.autoscaling_state.pending_instance_requests.add().count = 1
    starting.autoscaling_state.pending_instances.add().instance_id = "i-1"
    assert not _may_become_free(ON_GPU, _status())
    assert _may_become_free(ON_GPU, requested)
    assert _may_become_free(ON_GPU, starting)
