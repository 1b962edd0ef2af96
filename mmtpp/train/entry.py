"""What Ray Train is given to run on every worker.

Ray Train's controller imports this module too; it needs neither a model nor DeepSpeed, which take
seconds of a processor to import.
"""

from typing import Any


def train_loop_per_worker(arguments: dict[str, Any]) -> dict[str, float]:
    """Run ``loop.train``."""
    from mmtpp.train.loop import train

    return train(**arguments)
