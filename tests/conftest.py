"""Shared fixtures: the folder of real data, and one local stack for all tests with services."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# no deadlines, because machines differ in speed; `make test-full` runs more examples
ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=40, **ANY_SPEED)
settings.register_profile("full", max_examples=1000, **ANY_SPEED)
settings.load_profile(os.environ.get("MMTPP_HYPOTHESIS", "quick"))

# Ray reads it on import; the tests never use a cluster without authentication
os.environ.setdefault("RAY_AUTH_MODE", "token")

ROOT = Path(__file__).parents[1]
DATA_VARIABLE = "MMTPP_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, which is not part of the repository."""
    folder = os.environ.get(DATA_VARIABLE, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{DATA_VARIABLE} does not name a folder with the real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A Ray head, an S3 server and an MLflow server, stopped at the end."""
    from cluster.local import down, up

    home = tmp_path_factory.mktemp("stack")
    running = up(home)
    os.environ.update(running.environment())
    yield running
    import ray

    ray.shutdown()
    down(home)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Headless Chromium, controlled by Playwright."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), "")
    if not path:
        pytest.skip("no Chromium on this machine: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def cluster(stack) -> Iterator:
    """Connects this process to the stack's Ray cluster as a driver."""
    import ray

    # workers import the project and its tests from this folder
    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, logging_level="WARNING")
    yield stack
    ray.shutdown()
