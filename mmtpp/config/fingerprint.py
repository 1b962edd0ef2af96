"""Fingerprints: a short name for exactly the settings that something depends on.

Each setting declares what it shapes (``config.shapes``); nothing here lists settings.
"""

import hashlib
import json
from collections.abc import Mapping

from mmtpp.config.schema import RunConfig
from mmtpp.config.shapes import Shapes, shaping

TRAINING = ("pretrain", "finetune")


def fingerprint(settings: Mapping[str, object]) -> str:
    """Hash of canonical JSON: 64 hexadecimal digits, the same in every process."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_fingerprint(config: RunConfig, *, job: str = "pretrain", steps: bool = True) -> str:
    """Hash of every setting that shapes a training run, apart from its data.

    The number of workers, ZeRO and how failures are handled are not in it: neither batches nor
    checkpoints depend on them.

    Args:
        config: Of the job.
        job: ``pretrain`` or ``finetune``; only the latter asks tasks.
        steps: Whether the number of updates is in it.
    """
    return fingerprint(shaping(config, *_kinds(job, steps=steps)))


def _kinds(job: str, *, steps: bool = True) -> list[Shapes]:
    kinds = [Shapes.PLAN, Shapes.RUN]
    if job == "finetune":
        kinds.append(Shapes.FINETUNE)
    return [*kinds, Shapes.STEPS] if steps else kinds


def run_name(config: RunConfig, job: str, *, store: str) -> str:
    """``run.name``, or one derived from the settings: no clock and no randomness in it.

    Args:
        config: Of the job.
        job: ``pretrain``, ``finetune``, ``evaluate``, ``predict`` or ``export``.
        store: Fingerprint of the store's content, or where its events come from.
    """
    if config.run.name and job in TRAINING:
        return config.run.name
    kinds = _kinds(job)
    if job not in TRAINING:
        kinds += [Shapes.STORE, Shapes.EVALUATION, Shapes.PREDICTION]
    suffix = fingerprint({"settings": shaping(config, *kinds), "store": store})
    return f"{config.run.name or config.model.preset}-{job}-{suffix[:8]}"
