"""The functions that Ray Train runs on every worker.

Ray Train's controller imports this module, too. It must not import a model or DeepSpeed, which take
seconds to import.
"""

from typing import Any


def train_loop_per_worker(arguments: dict[str, Any]) -> None:
    """Run ``loop.train``."""
    from mmtpp.train.loop import train

    train(**arguments)


def train_expert_per_worker(arguments: dict[str, Any]) -> None:
    """Run ``expert_loop.train_expert``."""
    from mmtpp.train.expert_loop import train_expert

    train_expert(**arguments)
