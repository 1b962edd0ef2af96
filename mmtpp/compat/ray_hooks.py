"""Private parts of Ray, checked on Ray 2.60.0."""

from typing import Any

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated import autoscaler_pb2

HEAD_RESOURCE = "node:__internal_head__"
ClusterStatus = Any  # GetClusterStatusReply; the generated classes have no types


def read_cluster_status(gcs_address: str) -> ClusterStatus:
    """Nodes of the cluster and the state of its autoscaler.

    Uses ``ray._raylet.GcsClient`` and the protocol buffers in ``ray.core.generated``, since the
    public state API does not report what the autoscaler refuses. Checked on Ray 2.60.0.

    Args:
        gcs_address: Address of the cluster's global control service.
    """
    status = autoscaler_pb2.GetClusterStatusReply()  # pyright: ignore[reportAttributeAccessIssue]
    status.ParseFromString(GcsClient(gcs_address).get_cluster_status())
    return status


def head_node_id() -> str:
    """Id of the cluster's head node.

    Uses the internal resource that Ray gives the head only. Checked on Ray 2.60.0.
    """
    (head,) = [node for node in ray.nodes() if HEAD_RESOURCE in node["Resources"]]
    return head["NodeID"]


def trials_of_results(results: Any) -> list[Any]:
    """Trials of a ``ray.tune.ResultGrid``, in the order of its results.

    Uses ``ResultGrid._experiment_analysis``: a public result of a trial that never reported has no
    settings. Checked on Ray 2.60.0.
    """
    return results._experiment_analysis.trials


def train_storage() -> Any:
    """Ray Train's internal storage of this run, which uploads checkpoints.

    Uses ``TrainContext.get_storage`` and the ``persist_current_checkpoint`` of its result. Must be
    called in a worker's main thread. Checked on Ray 2.60.0.
    """
    import ray.train

    context: Any = ray.train.get_context()
    return context.get_storage()
