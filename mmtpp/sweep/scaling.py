"""How loss falls with model size, data and context: a scaling law fitted to the trials of a sweep.

python tune/sweep.py --config tune/configs/scaling.toml
mmtpp scaling --result s3://mmtpp/runs/NAME/result.json
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from scipy.optimize import least_squares

from mmtpp.core.errors import DataError
from mmtpp.core.training.training_metrics import (
    EVENTS_PER_CONTEXT,
    TOKENS_PER_EVENT,
    TRAINED_PARAMETERS,
    VALIDATION_EVENT_NLL,
)
from mmtpp.sweep.ranking import finished_trials
from mmtpp.sweep.trial_row import TrialRow
from mmtpp.sweep.trial_table import markdown_table

CONTEXT = "window.max_tokens"
HUBER = 1e-3  # scale of the Huber loss of the log loss, as in the source
RESAMPLES = 200  # few, because every resample fits the law from all starts again
FEW_TICKS = 5
MIN_VALUES = 3  # per quantity: with two values any exponent fits, together with another floor
EXPONENTS = (1e-3, 5.0)  # bounds of the fitted exponents
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trials:
    """Finished trials of fresh models.

    Attributes:
        parameters: Trained parameters, embeddings included, (N,).
        tokens: Tokens trained on, (N,).
        context: Maximum number of tokens in a sample, (N,).
        loss: Validation loss, nats per event, (N,).
    """

    parameters: Array
    tokens: Array
    context: Array
    loss: Array

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> "Trials":
        """Read the finished trials from the result of a sweep."""
        rows = finished_trials(TrialRow.from_dict(row) for row in result["trials"])
        rows = [row for row in rows if VALIDATION_EVENT_NLL in row.metrics]

        def metric(name: str) -> Array:
            return np.array([row.metrics[name] for row in rows])

        def setting(name: str) -> Array:
            settings = [{**result["shared"], **row.settings} for row in rows]
            return np.array([float(values[name]) for values in settings])

        steps = np.array([float(row.step or 0) for row in rows])
        per_sample = metric(TOKENS_PER_EVENT) * metric(EVENTS_PER_CONTEXT)
        return cls(
            parameters=metric(TRAINED_PARAMETERS),
            tokens=steps * setting("training.samples_per_step") * per_sample,
            context=setting(CONTEXT),
            loss=metric(VALIDATION_EVENT_NLL),
        )

    def take(self, indices: NDArray[np.int64]) -> "Trials":
        """The trials at the given indices, in this order."""
        return Trials(
            self.parameters[indices],
            self.tokens[indices],
            self.context[indices],
            self.loss[indices],
        )

    def quantities(self) -> dict[str, Array]:
        """The quantities that have more than one value, by name."""
        columns = {
            "parameters": self.parameters,
            "tokens": self.tokens,
            "context": self.context,
        }
        return {name: values for name, values in columns.items() if len(set(values.tolist())) > 1}


@dataclass(frozen=True, slots=True)
class Law:
    """loss = floor + sum of coefficient x (quantity / its geometric mean)^-exponent.

    Attributes:
        floor: Loss that no size or data removes, nats per event.
        coefficients: Loss from each quantity at its geometric mean, nats per event.
        exponents: Exponent of each quantity.
    """

    floor: float
    coefficients: dict[str, float]
    exponents: dict[str, float]


@dataclass(frozen=True, slots=True)
class ConfidenceIntervals:
    """95 % confidence intervals of a law.

    Attributes:
        floor: Interval of the floor, nats per event.
        exponents: Interval of the exponent of each quantity.
        effects: Interval of the fall of the loss over the range of each quantity, nats per event.
    """

    floor: tuple[float, float]
    exponents: dict[str, tuple[float, float]]
    effects: dict[str, tuple[float, float]]


def fit_law(trials: Trials) -> Law:
    """Fit the law to all quantities that have more than one value.

    Args:
        trials: Trials, at least one for each fitted number.

    Raises:
        DataError: There are fewer trials than numbers to fit, or a quantity has only two values.

    Source: Hoffmann et al. 2022 (arXiv 2203.15556), approach 3: a Huber loss of the logarithms,
    minimised from several starts; the context as a third quantity is ours.
    """
    quantities = trials.quantities()
    _check_enough(trials, quantities)
    size = len(quantities)
    logs = np.stack(
        [np.log(values / np.exp(np.log(values).mean())) for values in quantities.values()]
    )

    def errors(free: Array) -> Array:
        terms = free[1 : 1 + size, None] - np.exp(free[1 + size :, None]) * logs
        floor = np.full((1, len(trials.loss)), free[0])
        return np.logaddexp.reduce(np.concatenate([floor, terms])) - np.log(trials.loss)

    least, most = np.log(EXPONENTS)
    low, high = [-20.0] * (1 + size) + [least] * size, [5.0] * (1 + size) + [most] * size
    fits = [
        least_squares(
            errors,
            np.clip(start, low, high),
            bounds=(low, high),
            loss="huber",
            f_scale=HUBER,
            xtol=1e-8,
            ftol=1e-8,
            max_nfev=200,
        )
        for start in _starts(trials, size)
    ]
    numbers = np.exp(min(fits, key=lambda fit: fit.cost).x)
    return Law(
        float(numbers[0]),
        dict(zip(quantities, numbers[1 : 1 + size].tolist(), strict=True)),
        dict(zip(quantities, numbers[1 + size :].tolist(), strict=True)),
    )


def _check_enough(trials: Trials, quantities: Mapping[str, Array]) -> None:
    """Check that the trials determine the law."""
    for name, values in quantities.items():
        if len(set(values.tolist())) < MIN_VALUES:
            raise DataError(
                f"{name} has two values, which do not determine an exponent and a floor",
                cause="search one value of it, or at least three",
            )
    if not quantities or len(trials.loss) < 1 + 2 * len(quantities):
        raise DataError(
            f"{len(trials.loss)} finished trials are not enough to fit "
            f"{1 + 2 * len(quantities)} numbers",
            cause="too few values of model.tiny_layers, training.max_flops or window.max_tokens "
            "are searched",
        )


def _starts(trials: Trials, size: int) -> list[Array]:
    """Starts of a fit, as logarithms: floor, coefficients, exponents."""
    return [
        np.log(
            [share * float(trials.loss.min())]
            + [(1 - share) * float(trials.loss.mean()) / size] * size
            + [exponent] * size
        )
        for share in (0.2, 0.8)
        for exponent in (0.1, 0.5, 1.5)
    ]


def bootstrap_intervals(trials: Trials) -> ConfidenceIntervals:
    """Compute 95 % bootstrap intervals over trials.

    Each resample is fitted from all starts. Numbers that the trials do not determine have wide
    intervals.
    """
    rng = np.random.default_rng(0)
    quantities = trials.quantities()
    floors: list[float] = []
    exponents: dict[str, list[float]] = {name: [] for name in quantities}
    effects: dict[str, list[float]] = {name: [] for name in quantities}
    for _ in range(RESAMPLES):
        resample = trials.take(rng.integers(0, len(trials.loss), len(trials.loss)))
        counts = [len(set(values.tolist())) for values in resample.quantities().values()]
        if len(counts) < len(quantities) or min(counts) < MIN_VALUES:
            continue
        law = fit_law(resample)
        floors.append(law.floor)
        for name, values in resample.quantities().items():
            exponents[name].append(law.exponents[name])
            effects[name].append(_effect(law, name, quantities[name], fitted_values=values))
    return ConfidenceIntervals(
        _interval(floors),
        {name: _interval(values) for name, values in exponents.items()},
        {name: _interval(values) for name, values in effects.items()},
    )


def _interval(values: list[float]) -> tuple[float, float]:
    """The central 95 % interval of resampled values."""
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def predict_losses(law: Law, trials: Trials) -> Array:
    """The law's losses of the trials it was fitted to, nats per event, (N,)."""
    total = np.full(len(trials.loss), law.floor)
    for name, values in trials.quantities().items():
        geometric_mean = np.exp(np.log(values).mean())
        total += law.coefficients[name] * (values / geometric_mean) ** -law.exponents[name]
    return total


def _effect(law: Law, name: str, values: Array, *, fitted_values: Array) -> float:
    """Fall of the loss from the smallest to the largest value of a quantity, nats per event.

    Args:
        law: Fitted law.
        name: Name of the quantity.
        values: Values whose range is taken.
        fitted_values: Values to which the law was fitted.
    """
    ends = np.array([values.min(), values.max()]) / np.exp(np.log(fitted_values).mean())
    terms = law.coefficients[name] * ends ** -law.exponents[name]
    return float(terms[0] - terms[1])


def undetermined_quantities(trials: Trials, law: Law, intervals: ConfidenceIntervals) -> list[str]:
    """The quantities whose exponents the trials do not determine.

    For these, the interval of the exponent reaches a bound of the fit, or the effect may be smaller
    than the root mean square error of the law.
    """
    least, most = EXPONENTS
    error = float(np.sqrt(np.mean((predict_losses(law, trials) - trials.loss) ** 2)))
    return [
        name
        for name, (low, high) in intervals.exponents.items()
        if low < 1.05 * least or high > most / 1.05 or intervals.effects[name][0] < error
    ]


def build_report(trials: Trials) -> tuple[str, bytes]:
    """Build a table of the fitted exponents as Markdown, and a figure of the trials as PNG."""
    law, intervals = fit_law(trials), bootstrap_intervals(trials)
    undetermined = undetermined_quantities(trials, law, intervals)
    return _as_text(trials, law, intervals, undetermined), _as_figure(trials, law, undetermined)


def _as_text(
    trials: Trials, law: Law, intervals: ConfidenceIntervals, undetermined: list[str]
) -> str:
    rows = [
        {
            "quantity": name,
            "exponent": law.exponents[name],
            "95 %": _interval_text(intervals.exponents[name]),
            "nats per event at its geometric mean": law.coefficients[name],
            "fall over its range": _effect(law, name, values, fitted_values=values),
            "95 % of the fall": _interval_text(intervals.effects[name]),
        }
        for name, values in trials.quantities().items()
    ]
    error = np.abs(predict_losses(law, trials) / trials.loss - 1)
    text = (
        f"nats per event = {law.floor:.3f} ({_interval_text(intervals.floor)}) + one falling power "
        "for each quantity\n\n"
        + markdown_table(rows, list(rows[0]))
        + f"\n\n{len(trials.loss)} trials; the error of the law is {error.mean():.1%} on average "
        f"and at most {error.max():.1%}.\n"
    )
    if undetermined:
        text += (
            f"\nThese trials do not determine the exponent of {', '.join(undetermined)}: its "
            f"interval reaches a bound of the fit, {EXPONENTS[0]:g} or {EXPONENTS[1]:g}, or its "
            "effect may be smaller than the error of the law.\n"
        )
    return text


def _interval_text(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _as_figure(trials: Trials, law: Law, undetermined: list[str]) -> bytes:
    """Draw the losses of the trials, and those of the law, against each quantity."""
    quantities = trials.quantities()
    figure = Figure(figsize=(3.8 * len(quantities), 3.4))
    for index, (name, values) in enumerate(quantities.items()):
        axes = figure.add_subplot(1, len(quantities), index + 1)
        points = axes.scatter(values, trials.loss, c=np.log10(trials.tokens), s=16)
        order = np.argsort(values)
        axes.plot(values[order], predict_losses(law, trials)[order], "x", color="0.4", markersize=5)
        exponent = "not determined" if name in undetermined else f"{law.exponents[name]:.2f}"
        axes.set(xscale="log", xlabel=name, title=f"exponent {exponent}")
        distinct = np.unique(values)
        if len(distinct) <= FEW_TICKS:
            axes.set_xticks(distinct, [f"{value:,.0f}" for value in distinct])
        axes.xaxis.set_minor_formatter(NullFormatter())  # minor labels would overlap
        if not index:
            axes.set_ylabel("validation, nats per event")
        if index == len(quantities) - 1:
            figure.colorbar(points, ax=axes, label="log10 tokens trained on")
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
