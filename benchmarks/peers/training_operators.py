"""Where the time of a training goes: PyTorch's operators by kind, and what is between them."""

import time

from torch.profiler import ProfilerActivity, profile

PRODUCTS, ATTENTION, OTHERS, BETWEEN = (
    "products of matrices",
    "attention",
    "other operators",
    "between operators",
)
_PRODUCTS = frozenset(f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm"))


def kind_of(operator: str) -> str:
    """Kind of one of PyTorch's operators.

    Args:
        operator: Its name in a profile.
    """
    if operator in _PRODUCTS:
        return PRODUCTS
    if "scaled_dot_product" in operator or "flash_attention" in operator:
        return ATTENTION
    return OTHERS if operator.startswith("aten::") else BETWEEN


class OperatorTimes:
    """Times the operators between ``start`` and ``stop``. Timing costs a few percent."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._started = 0.0

    def start(self) -> None:
        """Begin."""
        self._profile.start()
        self._started = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """End; returns the seconds of each kind. What no operator takes is between them."""
        wall_s = time.perf_counter() - self._started
        self._profile.stop()
        seconds: dict[str, float] = dict.fromkeys((PRODUCTS, ATTENTION, OTHERS), 0.0)
        for event in self._profile.key_averages():
            if (kind := kind_of(event.key)) != BETWEEN:
                seconds[kind] += event.self_cpu_time_total / 1e6
        return {**seconds, BETWEEN: wall_s - sum(seconds.values())}
