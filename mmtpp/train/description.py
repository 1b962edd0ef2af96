"""What MLflow shows of a run besides its numbers."""

from mmtpp.config.schema import RunConfig
from mmtpp.storage.manifest import Manifest
from mmtpp.track.tracker import TrackedData
from mmtpp.train.task import Task


def job_tags(job: str) -> dict[str, str]:
    """What MLflow shows as a run's source."""
    return {
        "mmtpp.job": job,
        "mlflow.source.name": f"jobs/{job}.py",
        "mlflow.source.type": "JOB",
    }


def tracked_store(uri: str, manifest: Manifest, *, context: str) -> TrackedData:
    """An event store as data of a run.

    Args:
        uri: of the store.
        manifest: of the store.
        context: ``training`` or ``evaluation``.
    """
    counts = {
        "events": manifest.events_kept,
        "frames": manifest.frames,
        **{f"{split} sequences": count for split, count in manifest.sequences_by_split.items()},
    }
    name = uri.rstrip("/").rpartition("/")[2]
    return TrackedData(name, uri, manifest.fingerprint, context, counts)


def describe_training(config: RunConfig, job: str, task: Task) -> str:
    """What the run is, in Markdown."""
    training, lora = config.training, config.lora
    model = f"`{config.model.path}`" if config.model.path else f"a random {config.model.preset}"
    how = f"LoRA of rank {lora.rank}" if lora.rank else "all parameters"
    lines = [
        f"**{job}** of {model}, {how}, {training.num_steps:,} steps",
        "",
        f"- store: `{config.store.uri}`",
        *([f"- goes on from: `{config.model.adapter}`"] if config.model.adapter else []),
        f"- {'adapter' if lora.rank else 'model'}: `{task.output_uri}`",
        f"- checkpoints: `{task.run.run_uri}`",
        f"- compression: {config.compression.strategy}, Delta {config.compression.delta:g}; "
        f"template {config.template.style}, {config.window.max_tokens:,} tokens",
    ]
    return "\n".join(lines)
