"""Settings of the run itself and of its tracking."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from mmtpp.config.affects import Affects
from mmtpp.config.section import Section, Uri


class RunSection(Section):
    """Name and location of the run."""

    name: Annotated[str, Affects.NOTHING] = Field(
        default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=100
    )
    """Name of the run in MLflow, and of its folder in ``run.storage_uri``. Empty: preset and
    fingerprint, so that the same settings resume the same run."""
    storage_uri: Annotated[Uri, Affects.NOTHING] = ""
    """Folder of checkpoints, adapters and logs; a local path, s3://, gs:// or az://. Jobs that
    train, evaluate or predict require it."""
    wait_for_machines_s: Annotated[NonNegativeFloat, Affects.NOTHING] = 1800.0
    """Maximum time to wait for machines that an autoscaler launches, at start-up and after a loss,
    in seconds. Without an autoscaler, a job waits at most 30 s at start-up; it never waits for
    machines that the autoscaler cannot launch."""


class TrackingSection(Section):
    """MLflow."""

    uri: Annotated[Uri, Affects.NOTHING] = ""
    """Address of the tracking server, or a sqlite:/// file. Empty: MLFLOW_TRACKING_URI, else
    mlruns.db in the current folder."""
    experiment: Annotated[str, Affects.NOTHING] = Field(default="mmtpp", min_length=1)
    """Name of the MLflow experiment."""
    parent_run_id: Annotated[str, Affects.NOTHING] = ""
    """Id of the parent MLflow run; sweeps set it. Empty: no parent."""
    register_as: Annotated[str, Affects.NOTHING] = Field(
        default="", pattern=r"^[A-Za-z0-9 ._-]*$", max_length=200
    )
    """Name in MLflow's model registry under which fine-tuned models are registered, except the
    trials of a sweep. Empty: no model is registered."""
    max_artifact_mib: Annotated[PositiveInt, Affects.NOTHING] = 200
    """Maximum size of an adapter or model folder that is logged as an artifact, in MiB, above 0. A
    larger folder is logged as a link."""
