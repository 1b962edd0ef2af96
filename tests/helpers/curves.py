"""Losses and times of a run, read from MLflow."""

from mlflow.tracking import MlflowClient

LOSS = "train/loss_per_token"


def curve(client: MlflowClient, run_id: object) -> dict[int, float]:
    """The loss of each step; the run must not have restarted from step 0."""
    points = client.get_metric_history(str(run_id), LOSS)
    assert [point.step for point in points].count(1) == 1, "the run restarted from step 0"
    return {point.step: point.value for point in points}


def times_of_steps(client: MlflowClient, run_id: object) -> dict[int, float]:
    """The end of each step, in seconds since 1970."""
    return {
        point.step: point.timestamp / 1000 for point in client.get_metric_history(str(run_id), LOSS)
    }
