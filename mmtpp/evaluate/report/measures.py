"""The measures that the report shows: the metrics of the table with texts, and number formats."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmtpp.core.times.durations import SECONDS, Unit, format_number
from mmtpp.evaluate.scores import metric_names
from mmtpp.evaluate.scores.estimates import Estimate
from mmtpp.evaluate.scores.metric_table import (
    FORECAST_METRICS,
    HORIZON_METRICS,
    Best,
    Quantity,
    Shown,
)

NOMINAL_COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of the report.

    Attributes:
        shown: Its texts.
        quantity: What the values are, which gives their unit.
        best: The best value; the nominal value of a coverage is ``NOMINAL_COVERAGE``.
    """

    shown: Shown
    quantity: Quantity
    best: Best

    @property
    def hint(self) -> str:
        """Which values are good."""
        if self.best == "nearest":
            return f"{100 * NOMINAL_COVERAGE:.0f} % is best"
        return "lower is better" if self.best == "lowest" else "higher is better"

    def text(self, value: float, unit: Unit = SECONDS) -> str:
        """Write a value as the report shows it.

        Args:
            value: Value of the metric; ``time`` in seconds.
            unit: Unit in which durations are written.
        """
        if self.quantity == "time":
            return unit.text(value)
        if not np.isfinite(value):
            return format_number(value)
        if self.quantity == "share":
            return f"{100 * value:.1f} %"
        return f"{value:,.3f}" if self.quantity == "nats" else format_number(value)

    def interval(self, estimate: Estimate, unit: Unit = SECONDS) -> str:
        """Write the ends of the 95 % interval without their unit; empty where one is infinite."""
        if not np.isfinite([estimate.value, estimate.low, estimate.high]).all():
            return ""
        ends = [estimate.low, estimate.high]
        if self.quantity == "time":
            return " to ".join(map(unit.number, ends))
        return " to ".join(self.text(end).removesuffix(" %") for end in ends)

    def best_of(self, values: Mapping[str, float]) -> str | None:
        """The name of the best finite value; None where no value is finite."""
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        if not finite:
            return None
        if self.best == "nearest":
            return min(finite, key=lambda name: abs(finite[name] - NOMINAL_COVERAGE))
        choose = min if self.best == "lowest" else max
        return choose(finite, key=finite.__getitem__)

    def advantage(self, difference: Estimate) -> Estimate:
        """Turn a difference, model less baseline, so that it is positive where the model is better.

        Defined for measures whose lowest or highest value is the best.
        """
        if self.best == "highest":
            return difference
        return Estimate(-difference.value, -difference.high, -difference.low)


_FAMILIES = ("joint", "time", "type", "text", "horizon")


def _measures() -> dict[str, Measure]:
    """The shown metrics by family; in a family the likelihood first, then as in the table."""
    metrics = {**FORECAST_METRICS, **HORIZON_METRICS}

    def place(name: str) -> tuple[int, bool]:
        return _FAMILIES.index(name.partition("/")[0]), metrics[name].quantity != "nats"

    return {
        name: Measure(shown, metrics[name].quantity, best)
        for name in sorted(metrics, key=place)
        if (shown := metrics[name].shown) and (best := metrics[name].best)
    }


MEASURES = _measures()
LIKELIHOODS = (metric_names.JOINT_NLL, metric_names.TIME_NLL, metric_names.TYPE_NLL)
"""Likelihoods, of which the result shows the first that both models have."""
HEADLINES = (metric_names.TIME_RMSE, metric_names.TYPE_ACCURACY)
"""Further measures of the result."""
BASELINES = {
    "marginal": "the intervals and types of the training events, without any history",
    "poisson": "a constant rate of events of each type",
    "hawkes": "each event raises the rates of events for a while",
    "last": "the previous interval and the previous type once more",
    "repeat": "the events of one horizon before the forecast once more",
}
"""The forecast of each baseline in words, by the baseline's name."""
