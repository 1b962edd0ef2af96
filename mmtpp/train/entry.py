"""The function that Ray Train runs on every worker.

The driver imports this module, too. It must not import a model or DeepSpeed, which take seconds to
import.
"""

from typing import Any

from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.worker_inputs import WorkerInputs


def train_on_worker(inputs: WorkerInputs | ExpertInputs, stop_request: Any) -> None:
    """Run ``loop.train``, or ``expert_loop.train_expert`` for a temporal expert.

    Args:
        inputs: What the driver sent.
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``.
    """
    if isinstance(inputs, ExpertInputs):
        from mmtpp.train.expert_loop import train_expert

        train_expert(inputs, stop_request)
    else:
        from mmtpp.train.loop import train

        train(inputs, stop_request)
