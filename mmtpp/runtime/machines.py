"""The machines of the Ray cluster: those there are, and waiting for those a job needs.

What an autoscaler can bring only it knows: it is asked, by a placement group of what the job needs,
and what it answers is read from the cluster's status (Ray's second autoscaler, the default since
2.50 and KubeRay's from 1.6 on).
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import (
    GetClusterStatusReply,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.state import get_log
from ray.util.state.exception import RayStateApiException

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ClusterError

logger = logging.getLogger(__name__)

POLL_S = 2.0  # of the autoscaler's rounds of 5 s, each of which forgets what failed in the last
REFUSED_S = 15.0  # by the autoscaler all the time: an idle machine that goes away may look like it
JOINING_S = 30.0  # without an autoscaler: for machines that are just starting
LOG_EVERY_S = 60.0
MONITOR_LOG, MONITOR_LINES = "monitor.log", 2000  # of Ray's head
MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Need:
    """Processes that a job cannot start without.

    Attributes:
        what: they are, in the plural, for messages.
        count: how many.
        each: resources of one, which no two machines share.
        labels: Ray's labels that their machines must have.
        setting: what says so, with present values, for messages.
    """

    what: str
    count: int
    each: Mapping[str, float]
    labels: Mapping[str, str]
    setting: str

    def __str__(self) -> str:
        labels = f" on machines with the labels {dict(self.labels)}" if self.labels else ""
        return f"{self.count} {self.what} with {_amounts(self.each)} each{labels}"


def data_tasks(config: RunConfig) -> Need:
    """Ray Data goes on with a single task at a time."""
    labels = config.store.machine_labels
    setting = f"store.machine_labels = {labels}"
    return Need("tasks of Ray Data", 1, {"CPU": 1.0}, labels, setting)


def machines(labels: Mapping[str, str]) -> list[dict[str, float]]:
    """Resources of each machine there is now with these Ray labels, of every one without labels."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [node["Resources"] for node in alive if labels.items() <= node["Labels"].items()]


def places(found: Sequence[Mapping[str, float]], each: Mapping[str, float]) -> int:
    """How many processes with these resources the machines hold when nothing else runs there."""
    return sum(
        min(int(have.get(kind, 0.0) / amount) for kind, amount in each.items()) for have in found
    )


def wait_for(need: Need, *, patience_s: float) -> None:
    """Return when the cluster has the machines, whoever may use them just now.

    Raises:
        ClusterError: the autoscaler cannot bring them, they did not come in time, or there is no
            autoscaler.
    """
    if places(machines(need.labels), need.each) >= need.count:
        return
    logger.info("waiting for machines: %s", need)
    group = placement_group(
        [dict(need.each)] * need.count, bundle_label_selector=[dict(need.labels)] * need.count
    )
    try:
        _wait(need, group, patience_s)
    finally:
        remove_placement_group(group)


def has_autoscaler() -> bool:
    """Whether machines may come by themselves."""
    return _knows(_status())


def _wait(need: Need, group: Any, patience_s: float) -> None:
    started = told = accepted = time.monotonic()
    failed: set[str] = set()
    while not group.wait(POLL_S) and places(machines(need.labels), need.each) < need.count:
        status = _status()
        now = time.monotonic()
        waited = now - started
        failed |= {each.ray_node_type_name for each in _failed(status)}
        if not _knows(status) and waited > min(JOINING_S, patience_s):
            raise ClusterError(
                f"{need}: they do not fit this cluster, which has no autoscaler",
                where=_situation(need, status, failed),
                cause="too few machines, or without these labels",
                setting=need.setting,
            )
        if not _refuses(status, group) or _others_want(need, status):
            accepted = now
        if now - accepted > REFUSED_S:
            raise ClusterError(
                f"{need}: the cluster's autoscaler has no machines for them",
                where=_situation(need, status, failed),
                cause="no node type has these labels and resources, or not as many machines as "
                "max_workers (maxReplicas) allows",
                setting=need.setting,
            )
        if waited > patience_s:
            raise ClusterError(
                f"{need}: the machines did not come in {waited:.0f} s",
                where=_situation(need, status, failed),
                cause="the cloud has none left or the account's quota is reached, which the "
                "autoscaler's log tells (ray monitor, or the events of the pods); or "
                f"they take longer to start than run.wait_for_machines_s = {patience_s:g}",
                setting=need.setting,
            )
        if now - told > LOG_EVERY_S:
            told = now
            logger.info(
                "waiting since %.0f s for %s; %s", waited, need, _situation(need, status, failed)
            )


def _status() -> GetClusterStatusReply:
    client = GcsClient(ray.get_runtime_context().gcs_address)
    status = GetClusterStatusReply()
    status.ParseFromString(client.get_cluster_status())
    return status


def _knows(status: GetClusterStatusReply) -> bool:
    """Whether an autoscaler has answered."""
    return status.autoscaling_state.autoscaler_state_version > 0


def _failed(status: GetClusterStatusReply) -> Any:
    return status.autoscaling_state.failed_instance_requests


def _reasons(failed: set[str]) -> list[str]:
    """Why machines of these types did not start: the newest reason of each in the autoscaler's log,
    since its state does not say."""
    (head,) = [node for node in ray.nodes() if "node:__internal_head__" in node["Resources"]]
    found = dict.fromkeys(sorted(failed), "")
    try:
        log = get_log(node_id=head["NodeID"], filename=MONITOR_LOG, tail=MONITOR_LINES)
        for name, reason in re.findall(
            r"Failed to launch \d+ nodes of type (\S+): (.*)", "".join(log)
        ):
            if name in found:
                found[name] = f" ({reason[:MAX_REASON]})"
    except (RayStateApiException, ConnectionError) as error:  # no such log on Kubernetes
        logger.info("the autoscaler's log is not there: %s", error)
    return [name + reason for name, reason in found.items()]


def _refuses(status: GetClusterStatusReply, group: Any) -> bool:
    refused = status.autoscaling_state.infeasible_gang_resource_requests
    return any(each.details.startswith(group.id.hex()) for each in refused)


def _others_want(need: Need, status: GetClusterStatusReply) -> bool:
    """Whether such machines are in use, or any on their way: what other jobs have or wait for looks
    like what is missing."""
    state = status.autoscaling_state
    if state.pending_instance_requests or state.pending_instances:
        return True
    return any(
        node.available_resources.get(kind, 0.0) < node.total_resources.get(kind, 0.0)
        for node in status.cluster_resource_state.node_states
        if need.labels.items() <= dict(node.labels).items()
        for kind in need.each
    )


def _situation(need: Need, status: GetClusterStatusReply, failed: set[str]) -> str:
    found = machines(need.labels)
    such = "such " if need.labels else ""
    alike = Counter(_amounts({kind: each.get(kind, 0.0) for kind in need.each}) for each in found)
    have = "; ".join(f"{count} with {amounts}" for amounts, count in alike.items())
    state = status.autoscaling_state
    asked = [f"{each.count} {each.ray_node_type_name}" for each in state.pending_instance_requests]
    coming = [each.ray_node_type_name for each in state.pending_instances]
    parts = [f"there are {len(found)} {such}machines{f': {have}' if have else ''}"]
    parts += [f"asked for: {', '.join(asked)}"] if asked else []
    parts += [f"starting: {', '.join(coming)}"] if coming else []
    parts += [f"failed to start: {'; '.join(_reasons(failed))}"] if failed else []
    return "; ".join(parts)


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
