"""Files and runs of the sweeps in the tests."""

import time

import ray
from mlflow.tracking import MlflowClient

LOSS = "validation/loss_per_token"
RATES = '[space]\n"training.learning_rate" = '


def children_of(client: MlflowClient, parent: object) -> list:
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    return client.search_runs([experiment.experiment_id], query)


def wait_until_free(cpus: float) -> None:
    """Wait until all CPUs of the Ray cluster are free."""
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < cpus:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.5)
