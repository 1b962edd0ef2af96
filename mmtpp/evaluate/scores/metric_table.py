"""The table of the metrics of forecasts: how each is computed, and how the report shows it.

The evaluation, its report, the check of ``sweep.metric`` and the tests read this table. The page of
this package explains each metric.
"""

from dataclasses import dataclass
from typing import Literal

from mmtpp.evaluate.scores.metric_names import (
    HORIZON_COUNT_ERROR,
    HORIZON_OTD,
    HORIZON_T_MAP,
    HORIZON_T_MAP_ALL_TYPES,
    HORIZON_TRUE_EVENTS,
    HORIZON_TRUNCATED_FUTURES,
    JOINT_NLL,
    TIME_NLL,
    TIME_RMSE,
    TYPE_ACCURACY,
    TYPE_MACRO_F1,
    TYPE_NLL,
)

Quantity = Literal["nats", "time", "share", "score"]
"""``nats``; ``time`` in seconds; ``share`` from 0 to 1; or ``score``, a plain number."""
Best = Literal["lowest", "highest", "nearest"]
"""The best value: the lowest, the highest, or the value nearest to the nominal one, which is 0.5 or
0.9 for a coverage and 1 for the mean residual."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Texts of a metric that the report shows.

    Attributes:
        label: Name in the table.
        short: Name in a sentence.
        about: One or two sentences of explanation.
    """

    label: str
    short: str
    about: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; most are ratios of two sums over targets.

    Attributes:
        quantity: What the values are, which gives their unit.
        best: The best value; None where no value is better, which the report cannot show.
        numerator: Name of the sum in the numerator, a value of ``metrics.target_values``; empty for
            a metric that is no ratio.
        denominator: Name of the sum in the denominator.
        is_root: Whether the metric is the square root of the ratio.
        shown: Texts of the report; None if the report does not show the metric.
    """

    quantity: Quantity
    best: Best | None
    numerator: str = ""
    denominator: str = "targets"
    is_root: bool = False
    shown: Shown | None = None


_NLL = (
    "The negative log-likelihood (NLL): the surprise, in nats, at the true event; 0.7 nats less "
    "means that the forecast gave the event twice the probability."
)
FORECAST_METRICS = {
    TIME_RMSE: Metric(
        "time",
        "lowest",
        "squared_error",
        is_root=True,
        shown=Shown(
            "RMSE of times",
            "RMSE of times",
            "Root mean square error: the typical distance between the mean forecast and the true "
            "interval. A few large errors have a large effect.",
        ),
    ),
    "time/rmse_of_median_s": Metric("time", "lowest", "squared_error_median", is_root=True),
    "time/rmse_of_greedy_s": Metric("time", "lowest", "squared_error_greedy", is_root=True),
    "time/mae_s": Metric(
        "time",
        "lowest",
        "absolute_error",
        shown=Shown(
            "MAE of times",
            "MAE of times",
            "Mean absolute error: the average distance between the median forecast and the true "
            "interval.",
        ),
    ),
    "time/mae_of_mean_s": Metric("time", "lowest", "absolute_error_mean"),
    "time/mae_of_greedy_s": Metric("time", "lowest", "absolute_error_greedy"),
    "time/crps_s": Metric(
        "time",
        "lowest",
        "crps",
        shown=Shown(
            "CRPS of times",
            "CRPS of times",
            "Continuous ranked probability score: an absolute error of the whole forecast "
            "distribution. It is small for narrow forecasts that contain the true interval.",
        ),
    ),
    TIME_NLL: Metric(
        "nats",
        "lowest",
        "time_nll",
        "has_density",
        shown=Shown(
            "NLL of times (nats per event)",
            "likelihood (NLL of times)",
            f"{_NLL} This one counts the time alone, as a density in the source's unit.",
        ),
    ),
    "time/code_nll_nats_per_event": Metric("nats", "lowest", "code_nll"),
    "time/coverage_50": Metric("share", "nearest", "covered_50"),
    "time/coverage_90": Metric(
        "share",
        "nearest",
        "covered_90",
        shown=Shown(
            "Coverage of 90 % intervals",
            "coverage",
            "The share of true intervals between the 5 % and the 95 % quantile of the forecast. "
            "A calibrated forecast contains 90 %.",
        ),
    ),
    "time/pit_coverage_90": Metric("share", "nearest", "pit_covered_90"),
    "time/residual_mean": Metric("score", "nearest", "residual"),
    "time/probability_off_grid": Metric("share", "lowest", "outside"),
    TYPE_ACCURACY: Metric(
        "share",
        "highest",
        "type_is_right",
        shown=Shown(
            "Accuracy of types",
            "accuracy of types",
            "The share of events whose most likely type is the true one, before the time is known.",
        ),
    ),
    "type/top3_accuracy": Metric("share", "highest", "top3"),
    TYPE_NLL: Metric(
        "nats",
        "lowest",
        "type_nll",
        shown=Shown(
            "NLL of types (nats per event)",
            "likelihood (NLL of types)",
            f"{_NLL} This one counts the type alone, before the time is known.",
        ),
    ),
    "joint/type_accuracy": Metric("share", "highest", "joint_type_is_right"),
    "joint/type_nll_nats_per_event": Metric("nats", "lowest", "joint_type_nll"),
    "text/nll_nats_per_event": Metric("nats", "lowest", "text_nll"),
    "text/nll_nats_per_token": Metric(
        "nats",
        "lowest",
        "text_nll",
        "text_tokens",
        shown=Shown(
            "NLL of texts (nats per token)",
            "likelihood (NLL of texts)",
            f"{_NLL} This one counts the tokens of the texts.",
        ),
    ),
    "text/rouge_l": Metric(
        "score",
        "highest",
        "rouge_l",
        "written",
        shown=Shown(
            "ROUGE-L of texts",
            "ROUGE-L",
            "The overlap of written and true texts by their longest common sequence of words, "
            "0 to 1.",
        ),
    ),
    "text/bleu": Metric("score", "highest", "bleu", "written"),
    "text/chrf": Metric(
        "score",
        "highest",
        "chrf",
        "written",
        shown=Shown(
            "chrF of texts",
            "chrF",
            "The overlap of written and true texts by short sequences of letters.",
        ),
    ),
    TYPE_MACRO_F1: Metric(
        "score",
        "highest",
        shown=Shown(
            "Macro-F1 of types",
            "macro-F1 of types",
            "The mean F1 score over the types, 0 to 1: rare types count as much as frequent ones.",
        ),
    ),
    JOINT_NLL: Metric(
        "nats",
        "lowest",
        "joint_nll",
        "has_density",
        shown=Shown(
            "NLL of time and type (nats per event)",
            "likelihood (NLL of time and type)",
            f"{_NLL} This one counts the time and the type of each event together.",
        ),
    ),
}
"""Metrics of the next event by name, in the order of ``metrics.json``. Each is also reported by
position in the sequence (``at_position``)."""
HORIZON_METRICS = {
    HORIZON_OTD: Metric(
        "time",
        "lowest",
        shown=Shown(
            "OTD of futures",
            "OTD of futures",
            "Optimal transport distance: the time by which the events of a sampled future must be "
            "moved, added or removed to become the true events.",
        ),
    ),
    HORIZON_COUNT_ERROR: Metric("score", "lowest"),
    HORIZON_TRUE_EVENTS: Metric("score", None),
    HORIZON_T_MAP: Metric(
        "score",
        "highest",
        shown=Shown(
            "T-mAP of futures",
            "T-mAP of futures",
            "Temporal mean average precision, 0 to 1: whether the most likely events of the "
            "futures occur near their forecast times.",
        ),
    ),
    HORIZON_T_MAP_ALL_TYPES: Metric("score", "highest"),
    HORIZON_TRUNCATED_FUTURES: Metric("share", "lowest"),
}
"""Metrics of sampled futures by name."""
