"""One store and one trained model, shared by all tests on the cluster."""

import pytest

from mmtpp.data.prepare import prepare
from mmtpp.train.launch import pretrain
from tests.on_ray.events import publish_events
from tests.on_ray.settings import SOURCE, make_config


@pytest.fixture(scope="session")
def store(cluster) -> dict:
    publish_events(SOURCE)
    return prepare(make_config())


@pytest.fixture(scope="session")
def base(store) -> dict:
    """An uninterrupted training of all parameters."""
    return pretrain(make_config(**{"run.name": "base"}))
