"""Fingerprints: a short name for exactly the settings something depends on."""

import hashlib
import json
from collections.abc import Mapping

from mmtpp.config.schema import RunConfig

_NOT_SHAPING = (
    "num_workers",
    "min_workers",
    "hang_timeout_s",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "upload_patience_s",
    "max_failures",
    "validate_every",
    "machine_labels",
)


def fingerprint(settings: Mapping[str, object]) -> str:
    """Hash of canonical JSON: 64 hexadecimal digits, the same in every process."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_fingerprint(config: RunConfig, *, job: str = "pretrain") -> str:
    """Hash of everything that shapes a training run: not its name, place, tracking or topology.

    Only ``finetune`` asks tasks.

    The number of workers and ZeRO are left out because neither batches nor checkpoints depend on
    them.
    """
    excluded = {"run", "tracking", "source", "evaluation", "prediction", "zero"}
    if job != "finetune":
        excluded.add("tasks")
    tree = config.model_dump(mode="json", exclude=excluded)
    tree["store"] = config.store.uri
    for key in _NOT_SHAPING:
        del tree["training"][key]
    return fingerprint(tree)


def run_name(config: RunConfig, job: str) -> str:
    """``run.name``, or one derived from the settings: no clock and no chance in it."""
    is_training = job in ("pretrain", "finetune")
    if config.run.name and is_training:
        return config.run.name
    tree = config.model_dump(mode="json", include={"evaluation", "prediction", "source"})
    run = run_fingerprint(config, job=job)
    suffix = run if is_training else fingerprint({"run": run, **tree})
    return f"{config.run.name or config.model.preset}-{job}-{suffix[:8]}"
