"""A report of made-up forecasts, for tests that look at the page."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from mmtpp.core.events import NO_FRAME
from mmtpp.evaluate.examples import Example
from mmtpp.evaluate.figures import make_plots
from mmtpp.evaluate.metrics import estimate
from mmtpp.evaluate.page import Subject, as_report
from mmtpp.evaluate.targets import TARGET_SCHEMA

HOSTILE = "<script>alert(1)</script>"
NUM_EVENTS = 40


def made_up_targets(sequences: int = 30, seed: int = 0) -> pa.Table:
    """Exponential waits of mean 1, forecast as they are; two types, forecast right or wrong."""
    rng = np.random.default_rng(seed)
    count = sequences * (NUM_EVENTS - 1)
    wait = rng.exponential(1.0, count)
    position = np.tile(np.arange(1, NUM_EVENTS), sequences)
    kind = rng.integers(0, 2, count)
    chance = rng.uniform(0.3, 0.9, count)  # of the true type
    columns = {
        "sequence_id": np.repeat([f"s{each:02d}" for each in range(sequences)], NUM_EVENTS - 1),
        "position": position,
        "context": position,
        "time": wait,
        "interval": wait,
        "previous_interval": np.ones(count),
        "type": kind,
        "previous_type": kind,
        "mean": np.ones(count),
        "greedy": np.ones(count),
        **{f"quantile_{round(100 * level):02d}": np.full(count, -np.log(1 - level))
           for level in (0.05, 0.25, 0.5, 0.75, 0.95)},
        "crps": wait * 0 + 0.5,
        "cdf": 1 - np.exp(-wait),
        "time_nll": wait,
        "code_nll": wait,
        "outside": np.zeros(count),
        "predicted_type": np.where(chance > 0.5, kind, 1 - kind),
        "type_nll": -np.log(chance),
        "type_rank": np.where(chance > 0.5, 0, 1),
    }  # fmt: skip
    table = {
        field.name: pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in TARGET_SCHEMA
    }
    return pa.table(table, schema=TARGET_SCHEMA)


def made_up_example(targets: pa.Table, sequence_id: str, rank: str) -> Example:
    """The events of one of its sequences; every third is compressed, every second has an image."""
    own = targets.filter(
        pa.array([each == sequence_id for each in targets["sequence_id"].to_pylist()])
    )
    intervals = np.append(0, own["interval"].to_numpy())
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (200, 30, 30)).save(file, format="JPEG")
    similar = np.arange(NUM_EVENTS) % 3 == 2
    attention = np.where(similar, 0.01, 0.02)
    attention[-1] = np.nan
    return Example(
        rank,
        sequence_id,
        0,
        np.cumsum(intervals),
        intervals,
        np.append(0, own["type"].to_numpy()).astype(np.int16),
        tuple(f"text {each} {HOSTILE}" for each in range(NUM_EVENTS)),
        similar,
        np.where(np.arange(NUM_EVENTS) % 2 == 0, 0, NO_FRAME).astype(np.int32),
        (file.getvalue(),),
        attention,
        1 - float(np.nansum(attention)),
        3,
    )


def made_up_report() -> str:
    """The page of all that."""
    targets = made_up_targets()
    found = estimate(targets, seconds_per_unit=60.0, resamples=50)
    worse = {name: type(each)(2 * each.value, 2 * each.low, 2 * each.high)
             for name, each in found.items()}  # fmt: skip
    names = ("type/accuracy", "time/mae_s", "time/nll_nats_per_event")
    subject = Subject(
        f"evaluate-{HOSTILE}", {"model": f"s3://bucket/{HOSTILE}"}, ("go", HOSTILE), 60.0
    )
    plots = make_plots(targets, found, seconds_per_unit=60.0)
    examples = [made_up_example(targets, "s03", "easy"), made_up_example(targets, "s07", "hard")]
    baseline = {name: worse[name] for name in names if name != "type/accuracy"}
    return as_report(subject, targets, {"model": found, "poisson": baseline}, plots, examples)
