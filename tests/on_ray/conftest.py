"""One store and trained models of every kind, shared by all tests on the cluster; sweep files."""

import pytest
from mlflow.tracking import MlflowClient

from mmtpp.data.prepare import prepare
from mmtpp.storage.paths import join
from mmtpp.sweep.best_config import as_toml
from mmtpp.train.launch import finetune, pretrain
from tests.helpers.job_settings import EXPERT, RUNS, SOURCE, STAGE_TWO, make_config
from tests.helpers.killing import worker_killed_after_checkpoint
from tests.helpers.published_events import publish_events
from tests.on_ray.sweep_runs import LOSS


@pytest.fixture(scope="session")
def store(cluster) -> dict:
    publish_events(SOURCE)
    return prepare(make_config())


@pytest.fixture(scope="session")
def base(store) -> dict:
    """An uninterrupted training of all parameters."""
    return pretrain(make_config(**{"run.name": "base"}))


@pytest.fixture(scope="session")
def adapted(base) -> dict:
    """LoRA on the base, fine-tuned on time, type and text."""
    changes = {"run.name": "stage2", "model.path": base["model_uri"], **STAGE_TWO}
    return finetune(make_config(**changes, **{"tracking.register_as": "line forecaster"}))


@pytest.fixture(scope="session")
def expert(store) -> dict:
    """A temporal expert of two workers, of which one is killed after the first network."""
    with worker_killed_after_checkpoint(join(RUNS, "expert")):
        return pretrain(make_config(**EXPERT, **{"run.name": "expert"}))


@pytest.fixture
def sweep_file(tmp_path):
    """Write a sweep file: the given tables, then the settings of the tests."""

    def write(name: str, tables: str, metric: str = f'"{LOSS}"', mode: str = '"min"', **changes):
        config = make_config(
            **{
                "training.num_workers": 1,
                "training.max_failures": 0,
                "training.samples_per_step": 2,
                **changes,
            }
        )
        file = tmp_path / f"{name}.toml"
        head = f'[sweep]\nname = "{name}"\nmetric = {metric}\nmode = {mode}\n'
        file.write_text(f"{head}{tables}\n{as_toml(config, 'tune/sweep.py')}")
        return file

    return write


@pytest.fixture
def mlflow_client(stack) -> MlflowClient:
    return MlflowClient(stack.mlflow_uri)
