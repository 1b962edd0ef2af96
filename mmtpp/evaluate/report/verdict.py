"""The result of an evaluation in sentences: whether the model is better than every baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmtpp.core.times.durations import typical_unit
from mmtpp.evaluate.report.measures import HEADLINES, LIKELIHOODS, MEASURES, Measure
from mmtpp.evaluate.scores.estimates import Estimate

Estimates = Mapping[str, Mapping[str, Estimate]]
_WORDS = {"better": "better by", "worse": "worse by", "unclear": "no clear difference, better by"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Comparison of the model with the baselines by one measure.

    Attributes:
        measure: Name of the measure in a sentence.
        is_better: Whether the model is better than every baseline over the whole 95 % interval of
            each difference.
        claim: ``better than every baseline``, or the baselines that the model is not better than.
        details: Sentences with the numbers.
    """

    measure: str
    is_better: bool
    claim: str
    details: tuple[str, ...]


def verdicts(estimates: Estimates, differences: Estimates) -> list[Verdict]:
    """Compare the model with the baselines by likelihood, by RMSE and by accuracy.

    Args:
        estimates: Metrics of ``model`` and of each baseline, times in seconds.
        differences: For each baseline, metrics of the model less metrics of the baseline.

    Returns:
        One verdict for each measure, the likelihood first; none where no baseline can be compared.
    """
    model = estimates["model"]
    compared = {key for metrics in differences.values() for key in metrics}
    likelihood = next((key for key in LIKELIHOODS if key in model and key in compared), None)
    keys = [key for key in (likelihood, *HEADLINES) if key in model and key in compared]
    return [_verdict(key, estimates, differences) for key in keys]


def headline(results: list[Verdict], num_sequences: int) -> str:
    """The first sentence of a report.

    Args:
        results: Return value of ``verdicts``.
        num_sequences: Number of held-out sequences.
    """
    if not results:
        return "The model was not compared with a baseline."
    if num_sequences < 2:
        return "One held-out sequence cannot show whether the model is better than a baseline."
    better = [result.measure for result in results if result.is_better]
    if len(better) == len(results):
        return f"The model is better than every baseline by {_list(better)}."
    other = "; ".join(
        f"{result.claim} by {result.measure}" for result in results if not result.is_better
    )
    if not better:
        return f"The model is {other}."
    return f"The model is better than every baseline by {_list(better)}, but {other}."


def _verdict(key: str, estimates: Estimates, differences: Estimates) -> Verdict:
    measure, model = MEASURES[key], estimates["model"][key]
    names = [name for name, metrics in differences.items() if key in metrics]
    state = {
        name: _state(measure, model, estimates[name][key], differences[name][key]) for name in names
    }
    not_beaten = [name for name in names if state[name] != "better"]
    best = measure.best_of({name: estimates[name][key].value for name in names}) or names[0]
    title = {best: f"{best}, the best of the {len(names)} baselines,"} if len(names) > 1 else {}
    sentences = [
        _sentence(
            measure,
            model,
            title.get(name, name),
            estimates[name][key],
            differences[name][key],
            state[name],
        )
        for name in not_beaten or [best]
    ]
    missing = [name for name in estimates if name != "model" and name not in names]
    if missing:
        sentences.append(f"Without this measure: {_list(missing)}.")
    claim = f"not better than {_list(not_beaten)}" if not_beaten else "better than every baseline"
    return Verdict(measure.shown.short, not not_beaten, claim, tuple(sentences))


def _state(
    measure: Measure, model: Estimate, baseline: Estimate, difference: Estimate
) -> Literal["better", "worse", "unclear"]:
    if not np.isfinite([model.value, baseline.value]).all():
        best = measure.best_of({"model": model.value, "baseline": baseline.value})
        if best is None:
            return "unclear"
        return "better" if best == "model" else "worse"
    advantage = measure.advantage(difference)
    if advantage.low > 0:
        return "better"
    return "worse" if advantage.high < 0 else "unclear"


def _sentence(
    measure: Measure,
    model: Estimate,
    name: str,
    baseline: Estimate,
    difference: Estimate,
    state: str,
) -> str:
    is_time = measure.quantity == "time"
    unit = typical_unit([model.value, baseline.value] if is_time else [])
    suffix = " nats" if measure.quantity == "nats" else ""
    ours, theirs = (
        f"{measure.text(estimate.value, unit)}{suffix}" for estimate in (model, baseline)
    )
    head = f"The model has {ours}, and {name} {theirs}"
    if not np.isfinite([model.value, baseline.value]).all():
        return f"{head}: infinite where a forecast gave an event no probability."
    gap = measure.advantage(difference)
    if state == "worse":
        gap = Estimate(-gap.value, -gap.high, -gap.low)
    unit = typical_unit([abs(gap.value)] if is_time else [])
    value = f"{measure.text(gap.value, unit)}{suffix}"
    if measure.quantity == "share":
        value = value.replace(" %", " percentage points")
    ends = measure.interval(gap, unit)
    return f"{head}: {_WORDS[state]} {value} (95 % interval {ends or 'unknown'})."


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
