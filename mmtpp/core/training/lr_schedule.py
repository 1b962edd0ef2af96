"""The learning-rate schedule as a pure function of the step."""

import math
from collections.abc import Callable

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1.0 - math.cos(math.pi * progress)) / 2,
    "constant": lambda progress: 0.0,
}
"""Share of the way from the peak to the final factor, after a share of the decay, by name."""


def lr_factor(
    step: int,
    *,
    num_steps: int,
    warmup_fraction: float,
    final_fraction: float,
    schedule: str = "linear",
) -> float:
    """Factor on the peak learning rate: linear warm-up, then the decay of the schedule.

    Args:
        step: Number of the next update, from 0 to ``num_steps - 1``.
        num_steps: Number of updates of the whole run.
        warmup_fraction: Share of the run in which the factor rises to 1.
        final_fraction: Factor at the last update; ``constant`` stays at 1 and ignores it.
        schedule: A key of ``DECAYS``.

    Returns:
        The factor, greater than 0 and at most 1.
    """
    warmup_steps = round(num_steps * warmup_fraction)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    decay_steps = max(1, num_steps - 1 - warmup_steps)
    progress = (step - warmup_steps) / decay_steps
    return 1.0 - (1.0 - final_fraction) * DECAYS[schedule](min(1.0, progress))
