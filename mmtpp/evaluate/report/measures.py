"""The measures that the report shows: their names, an explanation of each, and their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmtpp.core.durations import SECONDS, Unit, format_number
from mmtpp.evaluate.metrics import Estimate

NOMINAL_COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of the report.

    Attributes:
        label: Its name in the table.
        short: Its name in a sentence.
        about: One or two sentences that explain it.
        kind: ``nats``, ``time`` in seconds, ``share`` of 0 to 1, or ``score``, a plain number.
        best: Whether the ``lowest`` value is the best, the ``highest``, or the one ``nearest`` to
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
        """A value as it is shown.

        Args:
            value: Value of the metric; ``time`` in seconds.
            unit: Unit that durations are written in.
        """
        if self.kind == "time":
            return unit.text(value)
        if not np.isfinite(value):
            return format_number(value)
        if self.kind == "share":
            return f"{100 * value:.1f} %"
        return f"{value:,.3f}" if self.kind == "nats" else format_number(value)

    def interval(self, estimate: Estimate, unit: Unit = SECONDS) -> str:
        """The ends of the 95 % interval, without their unit; an empty text of an infinite value."""
        if not np.isfinite([estimate.value, estimate.low, estimate.high]).all():
            return ""
        ends = [estimate.low, estimate.high]
        if self.kind == "time":
            return " to ".join(map(unit.number, ends))
        return " to ".join(self.text(end).removesuffix(" %") for end in ends)

    def best_of(self, values: Mapping[str, float]) -> str:
        """The name of the best finite value; an empty text where none is finite."""
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        if not finite:
            return ""
        if self.best == "nearest":
            return min(finite, key=lambda name: abs(finite[name] - NOMINAL_COVERAGE))
        choose = min if self.best == "lowest" else max
        return choose(finite, key=finite.__getitem__)

    def advantage(self, difference: Estimate) -> Estimate:
        """A difference of the model's value and another, positive where the model is better.

        Only of measures whose lowest or highest value is the best.
        """
        if self.best == "highest":
            return difference
        return Estimate(-difference.value, -difference.high, -difference.low)


_NLL = (
    "The negative log-likelihood (NLL): the surprise, in nats, at what happened; 0.7 nats less "
    "means that the forecast gave twice the probability."
)
MEASURES = {
    "joint/nll_nats_per_event": Measure(
        "NLL of time and type (nats per event)",
        "likelihood (NLL of time and type)",
        f"{_NLL} This one counts the time and the type of each event together.",
        "nats",
    ),
    "time/nll_nats_per_event": Measure(
        "NLL of times (nats per event)",
        "likelihood (NLL of times)",
        f"{_NLL} This one counts the time alone, as a density in the source's unit.",
        "nats",
    ),
    "time/rmse_s": Measure(
        "RMSE of times",
        "RMSE of times",
        "Root mean square error: the typical distance between the mean forecast and the true "
        "interval. A few large misses weigh much.",
        "time",
    ),
    "time/mae_s": Measure(
        "MAE of times",
        "MAE of times",
        "Mean absolute error: the average distance between the median forecast and the true "
        "interval.",
        "time",
    ),
    "time/crps_s": Measure(
        "CRPS of times",
        "CRPS of times",
        "Continuous ranked probability score: an absolute error of the whole forecast "
        "distribution. It is small for narrow forecasts that hold the truth.",
        "time",
    ),
    "time/coverage_90": Measure(
        "Coverage of 90 % intervals",
        "coverage",
        "The share of true intervals between the 5 % and the 95 % quantile of the forecast. "
        "Honest forecasts hold 90 %.",
        "share",
        "nearest",
    ),
    "type/nll_nats_per_event": Measure(
        "NLL of types (nats per event)",
        "likelihood (NLL of types)",
        f"{_NLL} This one counts the type alone, before the time is known.",
        "nats",
    ),
    "type/accuracy": Measure(
        "Accuracy of types",
        "accuracy of types",
        "The share of events whose most likely type is the true one, before the time is known.",
        "share",
        "highest",
    ),
    "type/macro_f1": Measure(
        "Macro-F1 of types",
        "macro-F1 of types",
        "The mean F1 score over the types, 0 to 1: rare types count as much as frequent ones.",
        "score",
        "highest",
    ),
    "text/nll_nats_per_token": Measure(
        "NLL of texts (nats per token)",
        "likelihood (NLL of texts)",
        f"{_NLL} This one counts the tokens of the texts.",
        "nats",
    ),
    "text/rouge_l": Measure(
        "ROUGE-L of texts",
        "ROUGE-L",
        "The overlap of written and true texts by their longest common sequence of words, 0 to 1.",
        "score",
        "highest",
    ),
    "text/chrf": Measure(
        "chrF of texts",
        "chrF",
        "The overlap of written and true texts by short sequences of letters.",
        "score",
        "highest",
    ),
    "horizon/otd_s": Measure(
        "OTD of futures",
        "OTD of futures",
        "Optimal transport distance: the time by which the events of a sampled future must be "
        "moved, added or removed to become what happened.",
        "time",
    ),
    "horizon/t_map": Measure(
        "T-mAP of futures",
        "T-mAP of futures",
        "Temporal mean average precision, 0 to 1: whether the likeliest events of the futures "
        "happen near their time.",
        "score",
        "highest",
    ),
}
LIKELIHOODS = ("joint/nll_nats_per_event", "time/nll_nats_per_event", "type/nll_nats_per_event")
HEADLINES = ("time/rmse_s", "type/accuracy")
BASELINES = {
    "marginal": "the intervals and types of the training events, without any history",
    "poisson": "a constant rate of events of each type",
    "hawkes": "each event raises the rates of events for a while",
    "last": "the last interval and the last type once more",
    "repeat": "the events before the forecast once more, as long as the horizon",
}
"""What each baseline forecasts, by its name."""
