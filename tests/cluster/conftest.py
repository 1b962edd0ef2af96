"""One autoscaled cluster for all tests: only the head runs until a job needs machines."""

from collections.abc import Iterator

import pytest
import ray

from benchmarks.fake_cloud import ROOT, autoscaled, node_type

NO_CAPACITY = "InsufficientInstanceCapacity: there are no such machines in this zone"
TYPES = {
    "data": node_type(2, {"role": "data"}, 2),
    "l4": node_type(1, {"role": "train", "gpu": "l4"}, 3),
    "h100": node_type(1, {"role": "train", "gpu": "h100"}, 1, no_capacity=NO_CAPACITY),
}


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    with (
        autoscaled(tmp_path_factory.mktemp("cloud"), TYPES, max_machines=5) as stack,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name, value in stack.environment().items():
            environment.setenv(name, value)
        ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, logging_level="WARNING")
        yield stack
        ray.shutdown()
