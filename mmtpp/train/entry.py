"""The function that Ray Train runs on every worker.

The driver imports this module, too. It must not import torch, a model or DeepSpeed, which take
seconds to import.
"""

from dataclasses import replace
from typing import Any

import ray.train

from mmtpp.runtime.fast_imports import fast_imports
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.worker_inputs import WorkerInputs


def train_on_worker(inputs: WorkerInputs | ExpertInputs, stop_request: Any) -> None:
    """Run ``loop.train``, or ``expert_loop.train_expert`` for a temporal expert.

    Args:
        inputs: What the driver sent.
        stop_request: Handle from ``runtime.interruptions.stops_on_sigterm``.
    """
    start_up = inputs.start_up.in_worker(resumes=ray.train.get_checkpoint() is not None)
    if isinstance(inputs, ExpertInputs):
        with fast_imports():
            from mmtpp.train.expert_loop import train_expert

        train_expert(replace(inputs, start_up=start_up.with_part("imports")), stop_request)
    else:
        with fast_imports():
            from mmtpp.compat.deepspeed_hooks import import_without_mlflow

            import_without_mlflow()
            from mmtpp.train.loop import train

        train(replace(inputs, start_up=start_up.with_part("imports")), stop_request)
