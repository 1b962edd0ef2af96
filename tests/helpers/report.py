"""A report of made-up forecasts, for tests of the page."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
from PIL import Image

from mmtpp.core.events import NO_FRAME
from mmtpp.evaluate.example import Example
from mmtpp.evaluate.report.figures import draw_report_figures
from mmtpp.evaluate.report.report_page import Subject, render_report
from mmtpp.evaluate.scores.metrics import estimate_metrics, metric_differences
from mmtpp.evaluate.scores.targets import LEVELS, complete_targets

HOSTILE = "<script>alert(1)</script>"
NUM_EVENTS = 40


def made_up_targets(sequences: int = 30, seed: int = 0) -> pa.Table:
    """Targets with exponential intervals of mean 1, forecast by the true distribution.

    There are two types, which are forecast right or wrong.
    """
    rng = np.random.default_rng(seed)
    count = sequences * (NUM_EVENTS - 1)
    wait = rng.exponential(1.0, count)
    position = np.tile(np.arange(1, NUM_EVENTS), sequences)
    kind = rng.integers(0, 2, count)
    chance = rng.uniform(0.3, 0.9, count)  # probability of the true type
    columns = {
        "sequence_id": np.repeat([f"s{number:02d}" for number in range(sequences)], NUM_EVENTS - 1),
        "position": position,
        "context": position,
        "time": wait,
        "interval": wait,
        "previous_interval": np.ones(count),
        "type": kind,
        "previous_type": kind,
        "mean": np.ones(count),
        "greedy": np.ones(count),
        **{
            f"quantile_{round(100 * level):02d}": np.full(count, -np.log(1 - level))
            for level in LEVELS
        },
        "crps": wait * 0 + 0.5,
        "cdf": 1 - np.exp(-wait),
        "time_nll": wait,
        "code_nll": wait,
        "outside": np.zeros(count),
        "predicted_type": np.where(chance > 0.5, kind, 1 - kind),
        "type_nll": -np.log(chance),
        "type_rank": np.where(chance > 0.5, 0, 1),
    }
    return complete_targets(columns, count)


def made_up_example(targets: pa.Table, sequence_id: str, difficulty: str) -> Example:
    """An example of one sequence; every third event is compressed, every second has an image."""
    is_inside = [name == sequence_id for name in targets["sequence_id"].to_pylist()]
    inside = targets.filter(pa.array(is_inside))
    intervals = np.append(0, inside["interval"].to_numpy())
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (200, 30, 30)).save(file, format="JPEG")
    similar = np.arange(NUM_EVENTS) % 3 == 2
    attention = np.where(similar, 0.01, 0.02)
    attention[-1] = np.nan
    return Example(
        difficulty,
        sequence_id,
        0,
        np.cumsum(intervals),
        intervals,
        np.append(0, inside["type"].to_numpy()).astype(np.int16),
        tuple(f"text {number} {HOSTILE}" for number in range(NUM_EVENTS)),
        similar,
        np.where(np.arange(NUM_EVENTS) % 2 == 0, 0, NO_FRAME).astype(np.int32),
        (file.getvalue(),),
        attention,
        1 - float(np.nansum(attention)),
        3,
    )


def worse_than(targets: pa.Table, seed: int = 1, *, with_types: bool = False) -> pa.Table:
    """The same targets with worse forecasts, by about half a nat and two mean intervals.

    Types are not forecast, or half of the right forecasts become wrong.
    """
    rng = np.random.default_rng(seed)
    count = len(targets)
    wait = targets["interval"].to_numpy()
    columns = {
        "time_nll": targets["time_nll"].to_numpy() + rng.uniform(0, 1, count),
        "mean": targets["mean"].to_numpy() + rng.uniform(1, 3, count) * wait.mean(),
        "quantile_50": targets["quantile_50"].to_numpy() + wait.mean(),
    }
    if with_types:
        right = targets["predicted_type"].to_numpy()
        columns["predicted_type"] = np.where(rng.random(count) < 0.5, right, right + 1)
    else:
        columns |= dict.fromkeys(("predicted_type", "type_nll", "type_rank"), [None] * count)
    for name, column in columns.items():
        place, kind = targets.column_names.index(name), targets[name].type
        targets = targets.set_column(place, name, pa.array(column, kind))
    return targets


def made_up_report() -> str:
    """The page of these forecasts, with two examples and one baseline."""
    targets = made_up_targets()
    other = worse_than(targets)
    model, baseline = (
        estimate_metrics(table, seconds_per_unit=60.0, resamples=50) for table in (targets, other)
    )
    against = metric_differences(targets, other, seconds_per_unit=60.0, resamples=50)
    subject = Subject(
        f"evaluate-{HOSTILE}", {"model": f"s3://bucket/{HOSTILE}"}, ("go", HOSTILE), 60.0
    )
    figures = draw_report_figures(targets, model, seconds_per_unit=60.0, names=subject.names())
    examples = [made_up_example(targets, "s03", "easy"), made_up_example(targets, "s07", "hard")]
    estimates = {"model": model, "poisson": baseline}
    return render_report(subject, targets, estimates, figures, examples, {"poisson": against})


NUM_TYPES, SINCE = 300, 1_704_067_200.0  # 2024-01-01T00:00:00 UTC
LONG = "https://records.example.org/unit/" + "maintenance-of-the-cooling-loop/" * 4


def realistic_targets(seed: int = 0) -> pa.Table:
    """Intervals of days in seconds, 300 types of which few are frequent, long sequence names."""
    rng = np.random.default_rng(seed)
    targets = made_up_targets(seed=seed)
    share = 1 / np.arange(1, NUM_TYPES + 1) ** 1.2
    kinds = rng.choice(NUM_TYPES, len(targets), p=share / share.sum())
    predicted = np.where(rng.random(len(targets)) < 0.4, kinds, rng.integers(0, 8, len(targets)))
    day = 86400.0
    waits = {
        name: targets[name].to_numpy() * 2.5 * day
        for name in targets.column_names
        if name in ("time", "interval", "mean", "greedy", "crps") or name.startswith("quantile_")
    }
    waits["mean"] *= rng.lognormal(0.0, 0.8, len(targets))
    columns = waits | {
        "type": kinds,
        "predicted_type": predicted,
        "time_nll": targets["time_nll"].to_numpy() + np.log(2.5 * day),
        "joint_type_nll": targets["type_nll"].to_numpy() + 2.5,
        "joint_predicted_type": predicted,
        "sequence_id": [f"{name}/{LONG}" for name in targets["sequence_id"].to_pylist()],
    }
    for name, column in columns.items():
        place, kind = targets.column_names.index(name), targets[name].type
        targets = targets.set_column(place, name, pa.array(column, kind))
    return targets


def realistic_report() -> str:
    """A page with dates, errors of days, 300 types with long names, and five baselines."""
    targets = realistic_targets()
    seconds = {"seconds_per_unit": 1.0, "resamples": 50}
    baselines = ("marginal", "poisson", "hawkes", "last", "a-neural-baseline-of-long-name")
    tables = {
        name: worse_than(targets, seed, with_types=name != "hawkes")
        for seed, name in enumerate(baselines)
    }
    against = {
        name: metric_differences(targets, table, **seconds) for name, table in tables.items()
    }
    estimates = {
        name: estimate_metrics(table, **seconds)
        for name, table in {"model": targets, **tables}.items()
    }
    names = tuple(
        f"type {code:03d}: $replacement$ of the 冷却 unit, {LONG}" for code in range(NUM_TYPES)
    )
    facts = {"model": f"s3://{'a-long-bucket-name/' * 8}model", "split": "test"}
    subject = Subject(f"evaluate-{LONG}", facts, names, 1.0, times_are_dates=True)
    figures = draw_report_figures(
        targets, estimates["model"], seconds_per_unit=1.0, names=subject.names()
    )
    example = made_up_example(targets, f"s03/{LONG}", "easy")
    example = replace(example, times=SINCE + example.times)
    return render_report(subject, targets, estimates, figures, [example], against)
