"""What MLflow kept of a run."""

from mlflow.tracking import MlflowClient

LOSS = "train/loss_per_token"


def curve(client: MlflowClient, run_id: object) -> dict[int, float]:
    """The losses by step of a run, which began only once."""
    points = client.get_metric_history(str(run_id), LOSS)
    assert [point.step for point in points].count(1) == 1, "it began again from nothing"
    return {point.step: point.value for point in points}


def times_of_steps(client: MlflowClient, run_id: object) -> dict[int, float]:
    """When each step ended, seconds since 1970."""
    return {
        point.step: point.timestamp / 1000 for point in client.get_metric_history(str(run_id), LOSS)
    }
