"""Shared fixtures: the folder of real data, and one local stack for all tests with services."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.paths import ROOT

# no deadlines, because machines differ in speed; `make test-full` runs more examples
ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# the same examples in every run: a change is judged by its own faults; "full" draws new ones
settings.register_profile("quick", max_examples=40, derandomize=True, **ANY_SPEED)
settings.register_profile("full", max_examples=1000, **ANY_SPEED)
settings.load_profile(os.environ.get("MMTPP_HYPOTHESIS", "quick"))

# Ray reads it on import; the tests never use a cluster without authentication
os.environ.setdefault("RAY_AUTH_MODE", "token")
# the tests share the CPUs, so tokenizers start no threads; mmtpp sets it where it reads events
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA_VARIABLE = "MMTPP_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, which is not part of the repository."""
    folder = os.environ.get(DATA_VARIABLE, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{DATA_VARIABLE} does not name a folder with the real data sets")
    return Path(folder)


# variables that a test may leave set, because importing a module or joining a cluster sets them for
# the whole process, with the reason
LIBRARY_VARIABLES = {
    "CRC32C_SW_MODE": "tensorboardX, which Ray Tune imports",
    "KMP_DUPLICATE_LIB_OK": "scikit-learn, on import",
    "KMP_INIT_AT_FORK": "scikit-learn, on import",
    "MLFLOW_DISABLE_TELEMETRY": "mmtpp.track.mlflow_tracker, on import, before it imports MLflow",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "mmtpp.track.mlflow_tracker, on import",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "mmtpp.track.mlflow_tracker, on import",
    "PYTHONBREAKPOINT": "Ray, when a driver connects to a cluster",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "DeepSpeed, on import",
    "RAY_CLIENT_MODE": "Ray, on import",
    "RAY_USAGE_STATS_ENABLED": "mmtpp.runtime.session, before it starts Ray",
    "TORCHINDUCTOR_CACHE_DIR": "torch's compiler, which peft imports",
    "_MLFLOW_TELEMETRY_SESSION_ID": "MLflow, on import",
}
# folders of tools in the repository that tests may fill; all are ignored by git
CACHE_FOLDERS = {
    ".git",
    ".hypothesis",
    ".mmtpp",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "build",
    "dist",
    "mmtpp.egg-info",
}


def list_repository() -> dict[str, frozenset[str]]:
    """Names of the files in each folder of the repository, without ``CACHE_FOLDERS``."""
    names: dict[str, frozenset[str]] = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in CACHE_FOLDERS]
        names[folder] = frozenset(files)
    return names


class RepositoryFiles:
    """The files of the repository, listed again only when a folder has changed."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._files: dict[str, frozenset[str]] = {}
        self.find_changes()

    def find_changes(self) -> list[str]:
        """Return the files and folders that were created or deleted since the last call."""
        if self._times and self._times == _folder_times(self._files):
            return []
        before, self._files = self._files, list_repository()
        self._times = _folder_times(self._files)
        return sorted(
            {str(Path(folder, name)) for folder, name in _pairs(before) ^ _pairs(self._files)}
            | (before.keys() ^ self._files.keys())
        )


def _folder_times(folders: Mapping[str, object]) -> dict[str, int]:
    """Times of the last change of each folder; 0 for a folder that does not exist."""
    return {
        folder: os.stat(folder).st_mtime_ns if os.path.isdir(folder) else 0  # noqa: PTH112, PTH116
        for folder in folders
    }


def _pairs(files: Mapping[str, frozenset[str]]) -> set[tuple[str, str]]:
    return {(folder, name) for folder, names in files.items() for name in names}


@pytest.fixture(scope="session")
def repository_files() -> RepositoryFiles:
    return RepositoryFiles()


def changed_variables(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Describe the environment variables that a test changed, by name."""
    ignored = {"PYTEST_CURRENT_TEST", *LIBRARY_VARIABLES}  # pytest sets the first for each test
    return {
        name: f"{before.get(name)!r} became {after.get(name)!r}"
        for name in (before.keys() | after.keys()) - ignored
        if before.get(name) != after.get(name)
    }


@pytest.fixture(autouse=True)
def leaves_no_trace(repository_files: RepositoryFiles) -> Iterator[None]:
    """Fail a test that changes the environment, the working directory or the repository.

    Tests use ``monkeypatch`` and ``tmp_path`` instead. Fixtures that live longer than a test are
    set up before this one, so what they set is allowed.
    """
    environment, folder = dict(os.environ), Path.cwd()
    yield
    changes = changed_variables(environment, dict(os.environ))
    assert changes == {}, "the test changed environment variables"
    assert Path.cwd() == folder, "the test changed the working directory"
    files = repository_files.find_changes()
    assert files == [], "files of the repository appeared or disappeared while the test ran"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A Ray head, an S3 server and an MLflow server, stopped at the end."""
    from cluster.local import down, up

    home = tmp_path_factory.mktemp("stack")
    running = up(home)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in running.environment().items():
            environment.setenv(name, value)
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
