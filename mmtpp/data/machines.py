"""The machines of the Ray cluster, by their labels."""

import logging
from collections.abc import Mapping

import ray

logger = logging.getLogger(__name__)


def machines(labels: Mapping[str, str], *, setting: str) -> list[dict[str, float]]:
    """Resources of each machine there is now with these Ray labels, of every one without labels.

    Warns when there is none: what is sent there waits until an autoscaler brings one.

    Args:
        labels: that a machine must have, all of them.
        setting: where they come from, for the warning.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = [node["Resources"] for node in alive if labels.items() <= node["Labels"].items()]
    if labels and not found:
        logger.warning(
            "none of the %d machines has the labels %s; waiting for an autoscaler (%s)",
            len(alive),
            dict(labels),
            setting,
        )
    return found
