"""Labels of a run in MLflow: its job and its data."""

from mmtpp.storage.manifest import Manifest
from mmtpp.track.tracker import TrackedData


def job_tags(job: str) -> dict[str, str]:
    """Tags that MLflow shows as the source of a run."""
    return {
        "mmtpp.job": job,
        "mlflow.source.name": f"jobs/{job}.py",
        "mlflow.source.type": "JOB",
    }


def tracked_store(uri: str, manifest: Manifest, *, context: str) -> TrackedData:
    """Describe an event store as the data of a run.

    Args:
        uri: URI of the store.
        manifest: Manifest of the store.
        context: Use of the data: ``training`` or ``evaluation``.
    """
    counts = {
        "events": manifest.events_kept,
        "frames": manifest.frames,
        **{f"{split} sequences": count for split, count in manifest.sequences_by_split.items()},
    }
    name = uri.rstrip("/").rpartition("/")[2]
    return TrackedData(name, uri, manifest.fingerprint, context, counts)
