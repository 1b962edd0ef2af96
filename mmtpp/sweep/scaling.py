"""How loss falls with model size, data and context: exponents fitted to the trials of a sweep.

python tune/sweep.py --config tune/configs/scaling.toml
mmtpp scaling --result s3://mmtpp/runs/NAME/result.json
"""

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from scipy.optimize import least_squares

# a script finds modules beside itself; `tune` is one level up
sys.path.insert(0, str(Path(__file__).parents[1]))

from mmtpp.core.errors import DataError
from mmtpp.sweep.sweep_settings import OF_WHOLE_EVENTS
from mmtpp.sweep.trial_table import Row, markdown

LOSS, PARAMETERS, STEP = OF_WHOLE_EVENTS, "model/trained_parameters", "step"
CONTEXT = "window.max_tokens"
HUBER = 1e-3  # of the logarithm of the loss, as in the source
RESAMPLES = 200
FEW_TICKS = 5
FEWEST_VALUES = 3  # of a quantity: with two of them any exponent fits, with another floor
EXPONENTS = (1e-3, 5.0)  # between which they are sought
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trials:
    """Finished trials of fresh models.

    Attributes:
        parameters: (N,) that are trained, embeddings included.
        tokens: (N,) trained on.
        context: (N,) tokens of a sample at most.
        loss: (N,) nats an event of the validation sequences.
    """

    parameters: Array
    tokens: Array
    context: Array
    loss: Array

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> "Trials":
        """From the result of a sweep; trials that did not finish are left out."""
        shared = result["shared"]

        def column(name: str) -> Array:
            return np.array([float({**shared, **row}[name]) for row in done])

        done = [row for row in result["trials"] if row["status"] == "finished" and LOSS in row]
        per_sample = column("data/tokens_per_event") * column("data/events_per_context")
        samples = column("training.samples_per_step")
        return cls(
            parameters=column(PARAMETERS),
            tokens=column(STEP) * samples * per_sample,
            context=column(CONTEXT),
            loss=column(LOSS),
        )

    def take(self, chosen: NDArray[np.int64]) -> "Trials":
        """Some of them, in this order."""
        return Trials(
            self.parameters[chosen], self.tokens[chosen], self.context[chosen], self.loss[chosen]
        )


@dataclass(frozen=True, slots=True)
class Law:
    """loss = floor + sum of coefficient x quantity^-exponent, each quantity over its mean.

    Attributes:
        floor: what no size or data takes away, nats an event.
        coefficients: what each quantity costs at its geometric mean, nats an event.
        exponents: how fast that falls.
    """

    floor: float
    coefficients: dict[str, float]
    exponents: dict[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """95 % intervals of a law.

    Attributes:
        floor: nats an event.
        exponents: of each quantity.
        effects: by how much the loss falls over the range of a quantity, nats an event.
    """

    floor: tuple[float, float]
    exponents: dict[str, tuple[float, float]]
    effects: dict[str, tuple[float, float]]


def fit(trials: Trials) -> Law:
    """Fit the law to the quantities that have at least three values.

    Args:
        trials: at least as many as numbers to fit.

    Raises:
        DataError: fewer trials than numbers to fit, or a quantity with two values.

    Source: Hoffmann et al. 2022 (arXiv 2203.15556), approach 3: a Huber loss of the logarithms,
    minimised from several starts; the context as a third quantity is ours.
    """
    quantities = _quantities(trials)
    for name, values in quantities.items():
        if len(set(values.tolist())) < FEWEST_VALUES:
            raise DataError(
                f"{name} has two values: no exponent can be told from a different floor",
                cause="search one value of it, or at least three",
            )
    if not quantities or len(trials.loss) < 1 + 2 * len(quantities):
        raise DataError(
            f"{len(trials.loss)} finished trials for {1 + 2 * len(quantities)} numbers to fit",
            cause="search model.tiny_layers, training.max_flops and window.max_tokens further",
        )
    logs = np.stack([np.log(each / np.exp(np.log(each).mean())) for each in quantities.values()])
    size = len(quantities)

    def errors(free: Array) -> Array:
        terms = free[1 : 1 + size, None] - np.exp(free[1 + size :, None]) * logs
        floor = np.full((1, len(trials.loss)), free[0])
        return np.logaddexp.reduce(np.concatenate([floor, terms])) - np.log(trials.loss)

    starts = [
        np.log(
            [share * float(trials.loss.min())]
            + [(1 - share) * float(trials.loss.mean()) / size] * size
            + [exponent] * size
        )
        for share in (0.2, 0.8)
        for exponent in (0.1, 0.5, 1.5)
    ]
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
        for start in starts
    ]
    numbers = np.exp(min(fits, key=lambda each: each.cost).x)
    return Law(
        float(numbers[0]),
        dict(zip(quantities, numbers[1 : 1 + size].tolist(), strict=True)),
        dict(zip(quantities, numbers[1 + size :].tolist(), strict=True)),
    )


def _quantities(trials: Trials) -> dict[str, Array]:
    every = {
        "parameters": trials.parameters,
        "tokens": trials.tokens,
        "context": trials.context,
    }
    return {name: values for name, values in every.items() if len(set(values.tolist())) > 1}


def spread(trials: Trials) -> Spread:
    """95 % bootstrap intervals, over trials.

    Each draw is fitted from all starts, so that what the trials do not tell shows in their width.
    """
    rng = np.random.default_rng(0)
    there = _quantities(trials)
    floors: list[float] = []
    exponents: dict[str, list[float]] = {name: [] for name in there}
    effects: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(RESAMPLES):
        chosen = trials.take(rng.integers(0, len(trials.loss), len(trials.loss)))
        values = [len(set(each.tolist())) for each in _quantities(chosen).values()]
        if len(values) < len(there) or min(values) < FEWEST_VALUES:
            continue
        law = fit(chosen)
        floors.append(law.floor)
        for name, found in _quantities(chosen).items():
            exponents[name].append(law.exponents[name])
            effects[name].append(_effect(law, name, there[name], mean_of=found))
    return Spread(
        _ends(floors),
        {name: _ends(found) for name, found in exponents.items()},
        {name: _ends(found) for name, found in effects.items()},
    )


def _ends(found: list[float]) -> tuple[float, float]:
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def predicted(law: Law, trials: Trials) -> Array:
    """(N,) the law's losses of the trials it was fitted to, nats an event."""
    total = np.full(len(trials.loss), law.floor)
    for name, values in _quantities(trials).items():
        mean = np.exp(np.log(values).mean())
        total += law.coefficients[name] * (values / mean) ** -law.exponents[name]
    return total


def _effect(law: Law, name: str, values: Array, *, mean_of: Array) -> float:
    """By how much the loss falls from the least to the most of a quantity, nats an event.

    Args:
        law: fitted.
        name: of the quantity.
        values: of the trials it is asked for.
        mean_of: values the law was fitted to.
    """
    ends = np.array([values.min(), values.max()]) / np.exp(np.log(mean_of).mean())
    terms = law.coefficients[name] * ends ** -law.exponents[name]
    return float(terms[0] - terms[1])


def untold(trials: Trials, law: Law, intervals: Spread) -> list[str]:
    """Quantities whose exponents the trials do not tell: the interval reaches an end of what was
    sought, or the effect may be smaller than the law's own errors are in the mean."""
    least, most = EXPONENTS
    error = float(np.sqrt(np.mean((predicted(law, trials) - trials.loss) ** 2)))
    return [
        name
        for name, (low, high) in intervals.exponents.items()
        if low < 1.05 * least or high > most / 1.05 or intervals.effects[name][0] < error
    ]


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def report(trials: Trials) -> tuple[str, bytes]:
    """A table of the fitted exponents, and a figure of the trials, as Markdown and PNG."""
    law, intervals = fit(trials), spread(trials)
    unknown = untold(trials, law, intervals)
    rows: list[Row] = [
        {
            "quantity": name,
            "exponent": law.exponents[name],
            "95 %": _interval(intervals.exponents[name]),
            "nats an event at its mean": law.coefficients[name],
            "over its range": _effect(law, name, values, mean_of=values),
            "95 % of that": _interval(intervals.effects[name]),
        }
        for name, values in _quantities(trials).items()
    ]
    error = np.abs(predicted(law, trials) / trials.loss - 1)
    text = (
        f"nats an event = {law.floor:.3f} ({_interval(intervals.floor)}) + a falling power of each "
        "of\n\n"
        + markdown(rows, list(rows[0]))
        + f"\n\n{len(trials.loss)} trials; the law is off by {error.mean():.1%} in the mean, "
        f"{error.max():.1%} at most.\n"
    )
    if unknown:
        text += (
            f"\nThese trials do not tell the exponent of {', '.join(unknown)}: its interval "
            f"reaches an end of what was sought, {EXPONENTS[0]:g} to {EXPONENTS[1]:g}, or the "
            "effect may be smaller than the law's errors.\n"
        )
    quantities = _quantities(trials)
    figure = Figure(figsize=(3.8 * len(quantities), 3.4))
    for place, (name, values) in enumerate(quantities.items()):
        axes = figure.add_subplot(1, len(quantities), place + 1)
        points = axes.scatter(values, trials.loss, c=np.log10(trials.tokens), s=16)
        order = np.argsort(values)
        axes.plot(values[order], predicted(law, trials)[order], "x", color="0.4", markersize=5)
        axes.set(
            xscale="log",
            xlabel=name,
            title="no exponent told" if name in unknown else f"exponent {law.exponents[name]:.2f}",
        )
        distinct = np.unique(values)
        if len(distinct) <= FEW_TICKS:
            axes.set_xticks(distinct, [f"{value:,.0f}" for value in distinct])
        axes.xaxis.set_minor_formatter(NullFormatter())  # they would overlap
        if not place:
            axes.set_ylabel("validation, nats an event")
        if place == len(quantities) - 1:
            figure.colorbar(points, ax=axes, label="log10 tokens trained on")
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return text, content.getvalue()
