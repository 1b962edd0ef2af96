"""How a run names its job and its data to MLflow."""

from mmtpp.storage.manifest import Manifest
from mmtpp.track.tracker import TrackedData


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
