"""The measures that the report shows: their names, explanations and number formats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmtpp.core.durations import SECONDS, Unit, format_number
from mmtpp.evaluate import metric_names
from mmtpp.evaluate.metrics import Estimate

NOMINAL_COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of the report.

    Attributes:
        label: Name in the table.
        short: Name in a sentence.
        about: One or two sentences of explanation.
        kind: ``nats``; ``time`` in seconds; ``share`` from 0 to 1; or ``score``, a plain number.
        best: The best value: the ``lowest``, the ``highest``, or the value ``nearest`` to
            ``NOMINAL_COVERAGE``.
    """

    label: str
    short: str
    about: str
    kind: Literal["nats", "time", "share", "score"]
    best: Literal["lowest", "highest", "nearest"] = "lowest"

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
        if self.kind == "time":
            return unit.text(value)
        if not np.isfinite(value):
            return format_number(value)
        if self.kind == "share":
            return f"{100 * value:.1f} %"
        return f"{value:,.3f}" if self.kind == "nats" else format_number(value)

    def interval(self, estimate: Estimate, unit: Unit = SECONDS) -> str:
        """Write the ends of the 95 % interval without their unit; empty where one is infinite."""
        if not np.isfinite([estimate.value, estimate.low, estimate.high]).all():
            return ""
        ends = [estimate.low, estimate.high]
        if self.kind == "time":
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


_NLL = (
    "The negative log-likelihood (NLL): the surprise, in nats, at the true event; 0.7 nats less "
    "means that the forecast gave the event twice the probability."
)
MEASURES = {
    metric_names.JOINT_NLL: Measure(
        "NLL of time and type (nats per event)",
        "likelihood (NLL of time and type)",
        f"{_NLL} This one counts the time and the type of each event together.",
        "nats",
    ),
    metric_names.TIME_NLL: Measure(
        "NLL of times (nats per event)",
        "likelihood (NLL of times)",
        f"{_NLL} This one counts the time alone, as a density in the source's unit.",
        "nats",
    ),
    metric_names.TIME_RMSE: Measure(
        "RMSE of times",
        "RMSE of times",
        "Root mean square error: the typical distance between the mean forecast and the true "
        "interval. A few large errors have a large effect.",
        "time",
    ),
    metric_names.TIME_MAE: Measure(
        "MAE of times",
        "MAE of times",
        "Mean absolute error: the average distance between the median forecast and the true "
        "interval.",
        "time",
    ),
    metric_names.TIME_CRPS: Measure(
        "CRPS of times",
        "CRPS of times",
        "Continuous ranked probability score: an absolute error of the whole forecast "
        "distribution. It is small for narrow forecasts that contain the true interval.",
        "time",
    ),
    metric_names.TIME_COVERAGE_90: Measure(
        "Coverage of 90 % intervals",
        "coverage",
        "The share of true intervals between the 5 % and the 95 % quantile of the forecast. "
        "A calibrated forecast contains 90 %.",
        "share",
        "nearest",
    ),
    metric_names.TYPE_NLL: Measure(
        "NLL of types (nats per event)",
        "likelihood (NLL of types)",
        f"{_NLL} This one counts the type alone, before the time is known.",
        "nats",
    ),
    metric_names.TYPE_ACCURACY: Measure(
        "Accuracy of types",
        "accuracy of types",
        "The share of events whose most likely type is the true one, before the time is known.",
        "share",
        "highest",
    ),
    metric_names.TYPE_MACRO_F1: Measure(
        "Macro-F1 of types",
        "macro-F1 of types",
        "The mean F1 score over the types, 0 to 1: rare types count as much as frequent ones.",
        "score",
        "highest",
    ),
    metric_names.TEXT_TOKEN_NLL: Measure(
        "NLL of texts (nats per token)",
        "likelihood (NLL of texts)",
        f"{_NLL} This one counts the tokens of the texts.",
        "nats",
    ),
    metric_names.TEXT_ROUGE_L: Measure(
        "ROUGE-L of texts",
        "ROUGE-L",
        "The overlap of written and true texts by their longest common sequence of words, 0 to 1.",
        "score",
        "highest",
    ),
    metric_names.TEXT_CHRF: Measure(
        "chrF of texts",
        "chrF",
        "The overlap of written and true texts by short sequences of letters.",
        "score",
        "highest",
    ),
    metric_names.HORIZON_OTD: Measure(
        "OTD of futures",
        "OTD of futures",
        "Optimal transport distance: the time by which the events of a sampled future must be "
        "moved, added or removed to become the true events.",
        "time",
    ),
    metric_names.HORIZON_T_MAP: Measure(
        "T-mAP of futures",
        "T-mAP of futures",
        "Temporal mean average precision, 0 to 1: whether the most likely events of the futures "
        "occur near their forecast times.",
        "score",
        "highest",
    ),
}
LIKELIHOODS = (metric_names.JOINT_NLL, metric_names.TIME_NLL, metric_names.TYPE_NLL)
"""Likelihoods, of which the result shows the first that both forecasters have."""
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
