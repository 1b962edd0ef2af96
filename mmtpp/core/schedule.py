"""Learning-rate schedule as a pure function of the step."""


def lr_factor(step: int, *, num_steps: int, warmup_fraction: float, final_fraction: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then linear decay.

    Args:
        step: the update about to be made, from 0 to ``num_steps - 1``.
        num_steps: updates of the whole run.
        warmup_fraction: share of the run spent rising from near 0 to 1.
        final_fraction: factor at the last update.

    Returns:
        Greater than 0, at most 1.
    """
    warmup_steps = round(num_steps * warmup_fraction)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    decay_steps = max(1, num_steps - 1 - warmup_steps)
    progress = (step - warmup_steps) / decay_steps
    return 1.0 - (1.0 - final_fraction) * min(1.0, progress)
