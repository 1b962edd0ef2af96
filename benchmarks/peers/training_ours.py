"""This project's training step on packed rows, with the engine of a training of one rank."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

from typing import Any

import numpy as np
import torch

from benchmarks.engine import single_rank_engine
from benchmarks.peers.measured_process import num_cores, run_as_trial
from benchmarks.peers.training_case import ROW_TOKENS, Case, load_case
from benchmarks.peers.training_measure import (
    LEARNING_RATE,
    UpdateMeter,
    build_model,
    update_windows,
)
from benchmarks.quality.trial import start_engine
from benchmarks.short_rows import batcher_of
from mmtpp.config.load import config_from_tree
from mmtpp.core.representation.packing import pack
from mmtpp.core.representation.row import PackedRow
from mmtpp.model.event_model import EventModel
from mmtpp.model.flops import FlopCounter, peak_flops
from mmtpp.train.step import LabelWeights, StepContext, train_step


def pack_windows(case: Case, windows: range) -> list[PackedRow]:
    """Packed rows of windows."""
    lengths = [len(case.ids[window]) for window in windows]
    return [
        _row(case, [windows[index] for index in sample])
        for sample in pack(lengths, max_tokens=ROW_TOKENS, seed=0)
    ]


def _row(case: Case, windows: list[int]) -> PackedRow:
    """A row, in which equal images are one frame, as the feed writes it."""
    shown = np.concatenate([case.image_frame[window] for window in windows])
    distinct, image_frame = np.unique(shown, return_inverse=True)
    ids = np.concatenate([case.ids[window] for window in windows])
    lengths = [len(case.ids[window]) for window in windows]
    return PackedRow(
        sample_id=0,
        input_ids=ids,
        modality=np.concatenate([case.modality[window] for window in windows]),
        segment=np.repeat(np.arange(len(windows), dtype=np.int32), lengths),
        event=np.zeros(len(ids), dtype=np.int32),
        may_be_label=np.ones(len(ids), dtype=np.bool_),
        frames=case.frames[distinct],
        image_frame=image_frame.astype(np.int32),
        event_type=np.zeros(1, dtype=np.int16),
        event_is_target=np.ones(1, dtype=np.bool_),
    )


def run(folder: str, *, profiles: bool = False) -> dict[str, Any]:
    """Train on every window once.

    Args:
        folder: Folder of the case.
        profiles: Whether the operators are timed, and the operations of the model counted.
    """
    case = load_case(folder)
    start_engine()
    model = build_model(case)
    steps = [pack_windows(case, windows) for windows in update_windows(case)]
    config = config_from_tree(
        {
            "lora": {"rank": 0},
            "training": {
                "num_steps": len(steps),
                "samples_per_step": len(steps[0]),
                "learning_rate": LEARNING_RATE,
                "warmup_fraction": 0.0,
                "lr_schedule": "constant",
            },
        }
    )
    event_model = EventModel(model)
    engine = single_rank_engine(config, event_model)
    torch.set_num_threads(num_cores())
    weights = LabelWeights(config.training.loss_weights, config.tasks)
    most_rows = max(map(len, steps))
    context = StepContext(engine, batcher_of(case.vocabulary), weights, most_rows, seed=0)
    meter, tokens, events = UpdateMeter(case, profiles), 0, 0
    for number, (windows, rows) in enumerate(zip(update_windows(case), steps, strict=True)):
        train_step(context, rows, number)
        tokens += sum(len(case.ids[window]) for window in windows)
        events += int(case.num_events[windows.start : windows.stop].sum())
        meter.finish_update(tokens, events)
    result = {**meter.result(model, tokens, events), "rows_per_update": most_rows}
    if profiles:
        count = FlopCounter(event_model, image_px=56, blank_frame=False)
        flops = sum(count(row).total for rows in steps for row in rows)
        peak, _ = peak_flops(torch.device("cpu"), torch.float32)
        result |= {"flops_per_token": flops / tokens, "peak_flops": peak}
    return result


if __name__ == "__main__":
    run_as_trial(run)
