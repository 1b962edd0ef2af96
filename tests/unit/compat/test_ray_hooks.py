"""The private parts of Ray that the project uses still exist and behave as expected."""

import inspect
import re
from pathlib import Path

import ray
import ray.train
from ray._raylet import InnerGcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.autoscaler.v2.utils import is_head_node
from ray.core.generated import autoscaler_pb2
from ray.train.v2._internal.execution.storage import StorageContext
from ray.tune import ExperimentAnalysis, ResultGrid

from mmtpp.compat import ray_hooks

CONSTRAINTS = (Path(__file__).parents[3] / "constraints.txt").read_text()


def test_the_hooks_name_the_pinned_version():
    assert f"ray=={ray.__version__}\n" in CONSTRAINTS
    assert set(re.findall(r"Ray (\d+\.\d+\.\d+)", inspect.getsource(ray_hooks))) == {
        ray.__version__
    }


def test_the_cluster_status_has_the_fields_that_are_read(monkeypatch):
    sent = autoscaler_pb2.GetClusterStatusReply()  # pyright: ignore[reportAttributeAccessIssue]
    state = sent.autoscaling_state
    state.autoscaler_state_version = 3
    state.infeasible_gang_resource_requests.add(details="group")
    state.failed_instance_requests.add(ray_node_type_name="gpu")
    state.pending_instance_requests.add(ray_node_type_name="gpu", count=2)
    state.pending_instances.add(ray_node_type_name="gpu")
    node = sent.cluster_resource_state.node_states.add()
    node.labels["gpu"] = "l4"
    node.available_resources["CPU"] = 1.0
    node.total_resources["CPU"] = 2.0

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "head:6379"

        def get_cluster_status(self) -> bytes:
            return sent.SerializeToString()

    assert hasattr(InnerGcsClient, "get_cluster_status")  # GcsClient forwards to it
    monkeypatch.setattr(ray_hooks, "GcsClient", Client)
    status = ray_hooks.read_cluster_status("head:6379")
    received = status.autoscaling_state
    assert received.autoscaler_state_version == 3
    assert received.infeasible_gang_resource_requests[0].details == "group"
    assert received.failed_instance_requests[0].ray_node_type_name == "gpu"
    assert received.pending_instance_requests[0].count == 2
    assert received.pending_instances[0].ray_node_type_name == "gpu"
    (node,) = status.cluster_resource_state.node_states
    assert dict(node.labels) == {"gpu": "l4"}
    assert node.available_resources["CPU"] < node.total_resources["CPU"]


def test_the_head_node_is_found_by_its_resource(monkeypatch):
    assert ray_hooks.HEAD_RESOURCE in inspect.getsource(is_head_node)
    nodes = [
        {"NodeID": "head", "Resources": {ray_hooks.HEAD_RESOURCE: 1.0}},
        {"NodeID": "worker", "Resources": {}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert ray_hooks.head_node_id() == "head"


def test_a_result_grid_keeps_its_trials():
    analysis = object.__new__(ExperimentAnalysis)
    analysis.trials = []
    assert ray_hooks.trials_of_results(ResultGrid(analysis)) is analysis.trials


def test_the_storage_of_a_training_uploads_checkpoints():
    assert hasattr(ray.train.TrainContext, "get_storage")
    upload = inspect.signature(StorageContext.persist_current_checkpoint)
    assert list(upload.parameters) == ["self", "checkpoint", "checkpoint_dir_name"]
    assert "experiment_fs_path" in dir(StorageContext)
