"""Fingerprints: a short name of exactly the settings that a result depends on.

Every setting declares which results it affects (``config.affects``), so there is no list here.
"""

import hashlib
import json
from collections.abc import Mapping

from mmtpp.config.affects import Affects, settings_that_affect
from mmtpp.config.schema import RunConfig

TRAINING_JOBS = ("pretrain", "finetune")
_OF_JOB = {
    "finetune": Affects.FINETUNE,
    "update": Affects.UPDATE,
    "prequential": Affects.PREQUENTIAL,
}


def fingerprint(settings: Mapping[str, object]) -> str:
    """Hash of canonical JSON: 64 hexadecimal digits, the same in every process."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_fingerprint(config: RunConfig, *, job: str = "pretrain", steps: bool = True) -> str:
    """Hash of every setting that affects a training run, except its data.

    The hash does not depend on the number of workers, on ZeRO or on the treatment of failures,
    because batches and checkpoints do not.

    Args:
        config: Configuration of the job.
        job: ``pretrain``, ``finetune``, ``update`` or ``prequential``; only ``finetune`` and
            ``update`` depend on tasks, and only the last two on the section ``update``.
        steps: Whether the hash depends on the number of updates.
    """
    return fingerprint(fingerprinted_settings(config, job=job, steps=steps))


def fingerprinted_settings(config: RunConfig, *, job: str, steps: bool) -> dict[str, object]:
    """The settings that ``run_fingerprint`` counts, by key; the arguments are the same."""
    return settings_that_affect(config, *_results(job, steps=steps))


def _results(job: str, *, steps: bool = True) -> list[Affects]:
    results = [Affects.PLAN, Affects.RUN]
    if job in _OF_JOB:
        results.append(_OF_JOB[job])
    return [*results, Affects.STEPS] if steps else results


def run_name(config: RunConfig, job: str, *, store: str) -> str:
    """``run.name``, or a name derived from the settings alone, so that it is the same every time.

    Args:
        config: Configuration of the job.
        job: ``pretrain``, ``finetune``, ``combine``, ``update``, ``prequential``, ``evaluate``,
            ``predict`` or ``export``.
        store: Fingerprint of the store's content, or the source of its events.
    """
    if config.run.name and job in TRAINING_JOBS:
        return config.run.name
    results = _results(job)
    if job not in TRAINING_JOBS:
        results += [Affects.STORE, Affects.EVALUATION, Affects.PREDICTION]
    suffix = fingerprint({"settings": settings_that_affect(config, *results), "store": store})
    return f"{config.run.name or config.model.preset}-{job}-{suffix[:8]}"
