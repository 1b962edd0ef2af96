"""A run in MLflow, and what every job records in it before its results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mmtpp.config.fingerprint import TRAINING_JOBS
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig
from mmtpp.storage.manifest import Manifest
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.provenance import versions
from mmtpp.track.run_labels import job_tags, tracked_store
from mmtpp.track.tracker import RunIdentity


@contextmanager
def tracked_run(
    config: RunConfig,
    manifest: Manifest,
    run: RunIdentity,
    *,
    job: str,
    description: str,
    tags: Mapping[str, str] | None = None,
) -> Iterator[MlflowTracker]:
    """A tracker that has recorded settings, versions, description and data of a job.

    Args:
        config: The whole configuration.
        manifest: Manifest of the store that the job reads.
        run: Name and folder of the run.
        job: Name of the job, for example ``pretrain``.
        description: Description of the run, in Markdown.
        tags: Further tags of the run, by name.
    """
    with MlflowTracker.from_run(config.tracking, run) as tracker:
        tracker.log_params(flat_settings(config))
        tracker.set_tags(
            {
                **job_tags(job),
                "mmtpp.store_fingerprint": manifest.fingerprint,
                **(tags or {}),
                **versions(),
            }
        )
        tracker.set_description(description)
        context = "training" if job in (*TRAINING_JOBS, "update") else "evaluation"
        tracker.log_dataset(tracked_store(config.store.uri, manifest, context=context))
        yield tracker
