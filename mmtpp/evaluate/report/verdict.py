"""The result of an evaluation in sentences: whether the model is better than every baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmtpp.core.durations import typical_unit
from mmtpp.evaluate.metrics import Estimate
from mmtpp.evaluate.report.measures import HEADLINES, LIKELIHOODS, MEASURES, Measure

Estimates = Mapping[str, Mapping[str, Estimate]]
_WORDS = {"better": "better by", "worse": "worse by", "unclear": "no clear difference, better by"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The model against the baselines by one measure.

    Attributes:
        measure: Name of the measure in a sentence.
        is_better: The model is better than every baseline, the 95 % interval of each difference
            included.
        claim: ``better than every baseline``, or which baselines it is not better than.
        details: Sentences with the numbers.
    """

    measure: str
    is_better: bool
    claim: str
    details: tuple[str, ...]


def verdicts(estimates: Estimates, differences: Estimates) -> list[Verdict]:
    """The model against the baselines: by likelihood, by RMSE and by accuracy.

    Args:
        estimates: Metrics of ``model`` and of each baseline, times in seconds.
        differences: Of each baseline, metrics of the model less those of the baseline.

    Returns:
        One verdict a measure, the likelihood first; none where no baseline can be compared.
    """
    model = estimates["model"]
    compared = {key for found in differences.values() for key in found}
    likelihood = next((key for key in LIKELIHOODS if key in model and key in compared), None)
    keys = [key for key in (likelihood, *HEADLINES) if key in model and key in compared]
    return [_verdict(key, estimates, differences) for key in keys]


def headline(found: list[Verdict], num_sequences: int) -> str:
    """The first sentence of a report.

    Args:
        found: What ``verdicts`` returned.
        num_sequences: Number of held-out sequences.
    """
    if not found:
        return "The model was not compared with a baseline."
    if num_sequences < 2:
        return "One held-out sequence cannot show whether the model is better than a baseline."
    better = [each.measure for each in found if each.is_better]
    if len(better) == len(found):
        return f"The model is better than every baseline by {_list(better)}."
    other = "; ".join(f"{each.claim} by {each.measure}" for each in found if not each.is_better)
    if not better:
        return f"The model is {other}."
    return f"The model is better than every baseline by {_list(better)}, but {other}."


def _verdict(key: str, estimates: Estimates, differences: Estimates) -> Verdict:
    measure, own = MEASURES[key], estimates["model"][key]
    names = [name for name, found in differences.items() if key in found]
    state = {
        name: _state(measure, own, estimates[name][key], differences[name][key]) for name in names
    }
    open_ones = [name for name in names if state[name] != "better"]
    best = measure.best_of({name: estimates[name][key].value for name in names}) or names[0]
    said = {best: f"{best}, the best of the {len(names)} baselines,"} if len(names) > 1 else {}
    sentences = [
        _sentence(
            measure,
            own,
            said.get(name, name),
            estimates[name][key],
            differences[name][key],
            state[name],
        )
        for name in open_ones or [best]
    ]
    missing = [name for name in estimates if name != "model" and name not in names]
    if missing:
        sentences.append(f"Without this measure: {_list(missing)}.")
    claim = f"not better than {_list(open_ones)}" if open_ones else "better than every baseline"
    return Verdict(measure.short, not open_ones, claim, tuple(sentences))


def _state(
    measure: Measure, own: Estimate, other: Estimate, difference: Estimate
) -> Literal["better", "worse", "unclear"]:
    if not np.isfinite([own.value, other.value]).all():
        both = {"own": own.value, "other": other.value}
        best = measure.best_of(both)
        return "unclear" if not best else "better" if best == "own" else "worse"
    advantage = measure.advantage(difference)
    if advantage.low > 0:
        return "better"
    return "worse" if advantage.high < 0 else "unclear"


def _sentence(
    measure: Measure,
    own: Estimate,
    name: str,
    other: Estimate,
    difference: Estimate,
    state: str,
) -> str:
    is_time = measure.kind == "time"
    unit = typical_unit([own.value, other.value] if is_time else [])
    suffix = " nats" if measure.kind == "nats" else ""
    ours, theirs = (f"{measure.text(each.value, unit)}{suffix}" for each in (own, other))
    head = f"The model has {ours}, and {name} {theirs}"
    if not np.isfinite([own.value, other.value]).all():
        return f"{head}: infinite where a forecast gave an event no probability."
    gap = measure.advantage(difference)
    if state == "worse":
        gap = Estimate(-gap.value, -gap.high, -gap.low)
    unit = typical_unit([abs(gap.value)] if is_time else [])
    value = f"{measure.text(gap.value, unit)}{suffix}"
    if measure.kind == "share":
        value = value.replace(" %", " percentage points")
    ends = measure.interval(gap, unit)
    return f"{head}: {_WORDS[state]} {value} (95 % interval {ends or 'unknown'})."


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
