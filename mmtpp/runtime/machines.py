"""The machines of the Ray cluster: list them, and wait until a job has those it needs.

Only the autoscaler knows which machines it can launch. A placement group asks it for the job's
resources, and its answer is read from the cluster's status (Ray's second autoscaler, the default
since 2.50 and KubeRay's from 1.6 on).
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.state import get_log
from ray.util.state.exception import RayStateApiException

from mmtpp.compat.ray_hooks import ClusterStatus, head_node_id, read_cluster_status
from mmtpp.core.errors import ClusterError

logger = logging.getLogger(__name__)

# The autoscaler works in rounds of 5 s and forgets in each round what failed in the one before.
POLL_S = 2.0
# An idle machine that is being removed can look like a refusal for a moment.
REFUSED_S = 15.0
JOINING_S = 30.0  # without an autoscaler: time for machines that are just starting
LOG_EVERY_S = 60.0
MONITOR_LOG, MONITOR_LINES = "monitor.log", 2000  # log of the autoscaler on Ray's head
MAX_REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class ResourceDemand:
    """Processes that a job cannot start without.

    Attributes:
        name: Name of the processes for messages, in the plural.
        count: Number of processes.
        resources: Ray resources of one process, which must be on one machine.
        labels: Ray labels that the machines must have.
        setting: The settings behind the demand with their present values, for messages.
    """

    name: str
    count: int
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    setting: str

    def __str__(self) -> str:
        labels = f" on machines with the labels {dict(self.labels)}" if self.labels else ""
        return f"{self.count} {self.name} with {_format_resources(self.resources)} each{labels}"


def data_task_demand(labels: Mapping[str, str]) -> ResourceDemand:
    """The demand of tasks that read a store, which make progress one at a time.

    Args:
        labels: ``store.machine_labels``.
    """
    setting = f"store.machine_labels = {labels}"
    return ResourceDemand("tasks that read the store", 1, {"CPU": 1.0}, labels, setting)


def task_options(labels: Mapping[str, str]) -> dict[str, Any]:
    """Options of ``ray.remote`` for a task that computes on one CPU.

    Args:
        labels: Ray labels of the machines that run the task.
    """
    return {
        "num_cpus": 1,
        "label_selector": dict(labels),
        # not in the placement group of a sweep's trial, which has no CPU
        "scheduling_strategy": "DEFAULT",
    }


def machines(labels: Mapping[str, str]) -> list[dict[str, float]]:
    """Resources of each live machine that has all these Ray labels."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [node["Resources"] for node in alive if labels.items() <= node["Labels"].items()]


def num_fitting(
    machine_resources: Sequence[Mapping[str, float]], process_resources: Mapping[str, float]
) -> int:
    """Number of processes that machines hold when nothing else runs on them.

    Args:
        machine_resources: Resources of each machine.
        process_resources: Resources of one process.
    """
    return sum(
        min(int(resources.get(kind, 0.0) / amount) for kind, amount in process_resources.items())
        for resources in machine_resources
    )


def wait_for_machines(demand: ResourceDemand, *, patience_s: float) -> None:
    """Return when the cluster has the machines, even if other jobs use them at the moment.

    Args:
        demand: Processes that the machines must hold.
        patience_s: Longest time to wait, in seconds.

    Raises:
        ClusterError: The autoscaler cannot launch the machines, they did not join in time, or there
            is no autoscaler.
    """
    if _has_machines(demand):
        return
    logger.info("waiting for machines: %s", demand)
    group = placement_group(
        [dict(demand.resources)] * demand.count,
        bundle_label_selector=[dict(demand.labels)] * demand.count,
    )
    try:
        _poll_until_ready(demand, group, patience_s)
    finally:
        remove_placement_group(group)


def has_autoscaler() -> bool:
    """Whether an autoscaler may add machines to the cluster."""
    return _has_reported(_read_status())


def is_single_machine() -> bool:
    """Whether the cluster is one machine, and no autoscaler may add others."""
    return len(machines({})) == 1 and not has_autoscaler()


def _has_machines(demand: ResourceDemand) -> bool:
    return num_fitting(machines(demand.labels), demand.resources) >= demand.count


def _poll_until_ready(demand: ResourceDemand, group: Any, patience_s: float) -> None:
    started = logged_at = accepted_at = time.monotonic()
    failed_types: set[str] = set()
    while not group.wait(POLL_S) and not _has_machines(demand):
        status = _read_status()
        now = time.monotonic()
        waited_s = now - started
        failed_types |= {
            request.ray_node_type_name
            for request in status.autoscaling_state.failed_instance_requests
        }
        if not _is_refused(status, group) or _may_become_free(demand, status):
            accepted_at = now
        reason = _reason_to_give_up(status, waited_s, now - accepted_at, patience_s)
        if reason is not None:
            raise ClusterError(
                f"{demand}: {reason[0]}",
                where=_describe_situation(demand, status, failed_types),
                cause=reason[1],
                setting=demand.setting,
            )
        if now - logged_at > LOG_EVERY_S:
            logged_at = now
            logger.info(
                "waited %.0f s for %s; %s",
                waited_s,
                demand,
                _describe_situation(demand, status, failed_types),
            )


def _reason_to_give_up(
    status: ClusterStatus, waited_s: float, refused_s: float, patience_s: float
) -> tuple[str, str] | None:
    """What happened and its likely cause, for the error; None to wait further."""
    if not _has_reported(status) and waited_s > min(JOINING_S, patience_s):
        return (
            "they do not fit this cluster, which has no autoscaler",
            "the cluster has too few machines, or its machines do not have these labels",
        )
    if refused_s > REFUSED_S:
        return (
            "the cluster's autoscaler has no machines for them",
            "no node type has these labels and resources, or max_workers (maxReplicas) allows "
            "fewer machines",
        )
    if waited_s > patience_s:
        return (
            f"the machines did not join within {waited_s:.0f} s",
            "the cloud has no such machines left or the account's quota is reached, see the "
            "autoscaler's log (ray monitor, or the events of the pods); or the machines take "
            f"longer to start than run.wait_for_machines_s = {patience_s:g}",
        )
    return None


def _read_status() -> ClusterStatus:
    return read_cluster_status(ray.get_runtime_context().gcs_address)


def _has_reported(status: ClusterStatus) -> bool:
    """Whether an autoscaler has reported its state."""
    return status.autoscaling_state.autoscaler_state_version > 0


def _launch_failures(failed_types: set[str]) -> list[str]:
    """Node types that did not start, each with the newest reason in the autoscaler's log.

    The autoscaler's state does not contain the reasons.
    """
    reasons = dict.fromkeys(sorted(failed_types), "")
    head = head_node_id()
    try:
        log = get_log(node_id=head, filename=MONITOR_LOG, tail=MONITOR_LINES)
        for node_type, reason in re.findall(
            r"Failed to launch \d+ nodes of type (\S+): (.*)", "".join(log)
        ):
            if node_type in reasons:
                reasons[node_type] = f" ({reason[:MAX_REASON_LENGTH]})"
    except (RayStateApiException, ConnectionError) as error:  # Kubernetes has no such log
        logger.info("the autoscaler's log cannot be read: %s", error)
    return [node_type + reason for node_type, reason in reasons.items()]


def _is_refused(status: ClusterStatus, group: Any) -> bool:
    requests = status.autoscaling_state.infeasible_gang_resource_requests
    return any(request.details.startswith(group.id.hex()) for request in requests)


def _may_become_free(demand: ResourceDemand, status: ClusterStatus) -> bool:
    """Whether suitable machines are in use by other jobs, or any machine is being launched.

    The autoscaler reports resources that other jobs hold or wait for as infeasible, too.
    """
    state = status.autoscaling_state
    if state.pending_instance_requests or state.pending_instances:
        return True
    return any(
        node.available_resources.get(kind, 0.0) < node.total_resources.get(kind, 0.0)
        for node in status.cluster_resource_state.node_states
        if demand.labels.items() <= dict(node.labels).items()
        for kind in demand.resources
    )


def _describe_situation(
    demand: ResourceDemand, status: ClusterStatus, failed_types: set[str]
) -> str:
    present = machines(demand.labels)
    counts = Counter(
        _format_resources({kind: resources.get(kind, 0.0) for kind in demand.resources})
        for resources in present
    )
    sizes = "; ".join(f"{count} with {resources}" for resources, count in counts.items())
    state = status.autoscaling_state
    requested = [
        f"{request.count} {request.ray_node_type_name}"
        for request in state.pending_instance_requests
    ]
    starting = [instance.ray_node_type_name for instance in state.pending_instances]
    labelled = " with these labels" if demand.labels else ""
    parts = [f"the cluster has {len(present)} machines{labelled}{f': {sizes}' if sizes else ''}"]
    parts += [f"requested: {', '.join(requested)}"] if requested else []
    parts += [f"starting: {', '.join(starting)}"] if starting else []
    parts += [f"failed to start: {'; '.join(_launch_failures(failed_types))}"] * bool(failed_types)
    return "; ".join(parts)


def _format_resources(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
