"""Examples of windows: their events, the compressed ones, and the model's attention.

Windows are chosen by how well their targets were forecast, from the easiest to the hardest.
"""

import numpy as np
import pyarrow as pa

from mmtpp.data.samples.actors import ActorPool, map_samples
from mmtpp.data.samples.plan import Plan
from mmtpp.evaluate.actors.example_reader import ExampleReader
from mmtpp.evaluate.example import DIFFICULTIES, Example
from mmtpp.inference.model_actor import ModelActorSettings

MIN_TARGETS = 5
_SCORES = ("time_nll", "type_nll")


def read_examples(
    settings: ModelActorSettings, plan: Plan, targets: pa.Table, pool: ActorPool
) -> list[Example]:
    """Read the windows of the examples on the machines that have the model.

    Args:
        settings: Settings of the plan, whose questions are about time or type, and the model.
        plan: Plan of the evaluation.
        targets: ``targets.TARGET_SCHEMA`` of the plan.
        pool: Number and resources of the actors.

    Returns:
        One window of each difficulty in the order of ``DIFFICULTIES``, each window at most once.
    """
    difficulty_of = choose_windows(plan.windows, targets)
    if not difficulty_of:
        return []
    order = list(difficulty_of)
    chosen = plan.with_single_windows(order)
    examples: dict[int, Example] = {}
    for table in map_samples(chosen, ExampleReader, settings, pool, title="evaluate: examples"):
        for row in table.to_pylist():
            window = order[row.pop("window")]
            examples[window] = _example(difficulty_of[window], row)
    return [examples[window] for window in order]


def choose_windows(windows: pa.Table, targets: pa.Table) -> dict[int, str]:
    """Choose a window for each difficulty.

    Args:
        windows: Windows of a plan, ``plan.WINDOW_SCHEMA``.
        targets: ``targets.TARGET_SCHEMA`` of the plan.

    Returns:
        The difficulty of each chosen window by the window's index, in the order of
        ``DIFFICULTIES``.
    """
    scores = [
        targets[name].to_numpy().astype(np.float64)
        for name in _SCORES
        if targets[name].null_count < len(targets)
    ]
    if not scores:
        return {}
    nll = np.nansum(scores, axis=0)
    sequence = targets["sequence_id"].to_numpy(zero_copy_only=False)
    position = targets["position"].to_numpy()
    distinct, codes = np.unique(sequence, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))[:-1]
    targets_of = dict(zip(distinct.tolist(), np.split(order, ends), strict=True))
    means: dict[int, float] = {}
    names = windows["sequence_id"].to_pylist()
    spans = zip(names, windows["first_scored"].to_pylist(), windows["end"].to_pylist(), strict=True)
    for window, (name, first, end) in enumerate(spans):
        rows = targets_of.get(name, order[:0])
        is_inside = (position[rows] >= first) & (position[rows] < end)
        rows = rows[is_inside & np.isfinite(nll[rows])]
        if len(rows) >= MIN_TARGETS:
            means[window] = float(nll[rows].mean())
    if not means:
        return {}
    by_mean = sorted(means, key=means.__getitem__)
    chosen: dict[int, str] = {}
    for difficulty, level in DIFFICULTIES.items():
        chosen.setdefault(by_mean[round(level * (len(by_mean) - 1))], difficulty)
    return chosen


def _example(difficulty: str, row: dict) -> Example:
    dtypes = {
        "times": np.float64,
        "intervals": np.float64,
        "types": np.int16,
        "similar": np.bool_,
        "frame": np.int32,
        "attention": np.float64,
    }
    for name, dtype in dtypes.items():
        row[name] = np.array(row[name], dtype=dtype)
    return Example(
        difficulty, **{**row, "texts": tuple(row["texts"]), "frames": tuple(row["frames"])}
    )
