"""The tiny model trained with every optimiser, at several learning rates, and in low precision.

Stage 1 on flights and danmaku (bullet comments), with the engine and the optimisers of this
project. Trials are compared by the likelihood of times and types in the validation split.
"""

from itertools import product
from typing import Any

import numpy as np
import torch

from benchmarks.quality.sets import DataSet
from benchmarks.quality.trial import Samples, batcher_of, open_store, train
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import NonFiniteLossError
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.core.representation.tokens import Modality
from mmtpp.data.from_config import build_sample_settings
from mmtpp.model.event_model import EventModel

STEPS, MAX_TOKENS, ROWS_TESTED = 300, 512, 40
RATES = {
    "adamw": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "muon": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "signum": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "steepest": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),  # entrywise, p = 2
}
# learning rates of the low-precision trials: good and stable for the optimiser
RATE = {"adamw": 1e-3, "muon": 3e-3}
PARTS = ("gradients", "weights", "states")
BITS = (0, 1, 2, 4, 7)
STOCHASTIC_BITS = (2, 4, 7)
SLOW = 0.999  # beta2

Changes = dict[str, Any]


def trials() -> list[Changes]:
    """Changed settings of all trials; every trial runs on each set with each seed."""
    changes: list[Changes] = []
    for name, rates in RATES.items():
        more = {"optimizer.geometry": "entrywise", "optimizer.p": 2.0} if name == "steepest" else {}
        changes += [
            {"optimizer.name": name, **more, "training.learning_rate": rate} for rate in rates
        ]
    for name, part in product(("adamw", "muon"), PARTS):
        plain = {"optimizer.name": name, "training.learning_rate": RATE[name]}
        bits = f"optimizer_precision.{part}.mantissa_bits"
        changes += [{**plain, bits: num_bits} for num_bits in BITS]
        if part == "weights":
            stochastic = {f"optimizer_precision.{part}.mode": "stochastic"}
            changes += [{**plain, bits: num_bits, **stochastic} for num_bits in STOCHASTIC_BITS]
    slow = {
        "optimizer.name": "adamw",
        "training.learning_rate": RATE["adamw"],
        "optimizer.beta2": SLOW,
    }
    changes.append(slow)
    changes += [{**slow, "optimizer_precision.states.mantissa_bits": num_bits} for num_bits in BITS]
    return changes


def configuration(data: DataSet, store: str) -> RunConfig:
    """Settings: no compression, time codes of two bytes, no images."""
    return config_from_tree(
        {
            "store": {"uri": store},
            "split": {"validation_fraction": 0.1, "test_fraction": 0.15},
            "compression": {"strategy": "none"},
            "template": {"style": "dense", "time_bytes": 2, "images": "none"},
            "window": {"max_tokens": MAX_TOKENS},
            "lora": {"rank": 0},
            "training": {
                "num_steps": STEPS,
                "samples_per_step": 1,
                "loss_weights": {"text": 0.2},
            },
            **data.settings,
        }
    )


def run(data: DataSet, store: str, changes: Changes, seed: int) -> dict[str, float]:
    """Train and score one trial; NaN if its loss was not finite."""
    config = with_values(configuration(data, store), {**changes, "training.seed": seed})
    try:
        model, seconds = train(config, AllTokens())
    except NonFiniteLossError:
        return {"nll": float("nan"), "seconds": float("nan")}
    return {"nll": validation_nll(config, model), "seconds": seconds}


@torch.no_grad()
def validation_nll(config: RunConfig, model: EventModel) -> float:
    """Loss of time and type tokens in nats per event, on the first rows of the validation split."""
    manifest, vocabulary = open_store(config)
    settings = build_sample_settings(config.sample_sections, manifest, split="validation")
    samples = Samples.from_settings(settings, vocabulary)
    batcher = batcher_of(config, vocabulary)
    model.eval()
    total, events = 0.0, 0
    for index in range(min(len(samples), ROWS_TESTED)):
        row = samples.row(index)
        nll = model(batcher(row))[0].double().numpy()
        labels = row.label_positions()
        is_scored = np.isin(row.modality[labels], (Modality.TIME, Modality.TYPE))
        total += float(nll[is_scored].sum())
        events += len(np.unique(row.event[labels][is_scored]))
    return total / events
