"""Tracker of a run in MLflow. A thread sends its calls, so no call waits for the server.

MLflow takes a second to import. The thread imports it, so no caller waits for that, either.
"""

import json
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mmtpp.config.schema import TrackingSection
from mmtpp.core.errors import ConfigError, StoppedError, StorageError, first_line
from mmtpp.storage.paths import copy_folder, join, write_bytes
from mmtpp.track.tracker import RunIdentity, TrackedData

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)

# MLflow reads its variables when it is imported. An unreachable server must not block callers for
# several minutes, its default.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# no usage statistics are sent to the authors of MLflow, unless the user enables them
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

RUN_KEY_TAG = "mmtpp.run"  # one MLflow run per value, also after restarts
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
STOPPED_TAG = "mmtpp.stopped"  # why another run closed this one; removed when the run resumes
_SQLITE = "sqlite:///"
FORECASTER = "forecaster"  # folder of the logged model
DIGEST_LENGTH = 36  # MLflow's limit
MAX_PARAM_LENGTH = 6000  # MLflow's limit
MAX_RUNS = 50_000  # MLflow's limit of the results of a search
MAX_BATCH = 100  # MLflow's limit of params in a request; its limit of metrics is higher
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
CLOSE_TIMEOUT_S = 60.0
TRACKER_WAIT_S = 20.0  # a job waits this long for the id of its run

# error codes after which a retry is useless
REFUSALS = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
)

_Call = Callable[["MlflowClient", str], object]


def import_early() -> None:
    """Begin to import MLflow in a thread, while the job does other work."""
    # not a daemon: a process that ends while a thread loads libraries may crash
    threading.Thread(target=import_module, args=("mlflow.tracking",), name="mlflow import").start()


def ping(uri: str) -> None:
    """Check that a tracking server answers, with a search for experiments.

    Raises:
        StorageError: The server does not answer or refuses the request.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise StorageError(
            f"the MLflow server {uri} does not answer: {first_line(error)}",
            cause="the server is not running or not reachable from here, or it requires "
            "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            setting="tracking.uri, or MLFLOW_TRACKING_URI in the environment",
        ) from error


def _artifact_location(uri: str) -> str | None:
    """Folder of the artifacts next to a database file; None lets the server choose.

    Without it, MLflow would write them to the current folder of whichever process is first.
    """
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).absolute().parent / "mlruns").as_uri()


class MlflowTracker:
    """One MLflow run, found by its key or created; see ``Tracker``.

    While the server does not answer, calls wait in memory and one warning is logged. When it
    answers again, the calls are sent in order. Calls that remain when the run closes are written to
    ``tracking_backlog-TIME.jsonl`` in the folder of the run.

    Args:
        uri: URI of a tracking server, or of a file as sqlite://.
        experiment: Name of the experiment, created if missing.
        run_key: Key of the run: the same key always finds the same run.
        run_name: Name of the run in MLflow's user interface.
        run_uri: Folder of the run.
        run_id: Id of the run, if already known.
        parent_run_id: Id of the parent run; empty for none.

    Raises:
        ConfigError: MLflow is not installed.
    """

    def __init__(
        self,
        uri: str,
        *,
        experiment: str,
        run_key: str,
        run_name: str,
        run_uri: str,
        run_id: str | None = None,
        parent_run_id: str = "",
    ) -> None:
        if find_spec("mlflow") is None:
            raise ConfigError(
                "a run is recorded in MLflow, which is not installed",
                cause="mmtpp was installed without the optional packages of trainings",
                setting="pip install 'mmtpp[track]'",
            )
        self._uri, self._experiment = uri, experiment
        self._run_key, self._run_name, self._run_uri = run_key, run_name, run_uri
        self._run_id, self._parent_run_id = run_id, parent_run_id
        self._calls: queue.Queue[tuple[dict[str, Any], _Call] | None] = queue.Queue()
        self._unsent: list[dict[str, Any]] = []
        self._has_given_up = threading.Event()
        self._is_known = threading.Event()
        if run_id:
            self._is_known.set()
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._thread.start()

    @classmethod
    def from_run(cls, settings: TrackingSection, run: RunIdentity) -> "MlflowTracker":
        """Build the tracker of a run from its settings and its identity."""
        return cls(
            settings.uri,
            experiment=settings.experiment,
            run_key=run.run_key,
            run_name=run.run_name,
            run_uri=run.run_uri,
            run_id=run.mlflow_run_id,
            parent_run_id=settings.parent_run_id,
        )

    @property
    def run_id(self) -> str | None:
        return self._run_id

    def wait_for_run(self, timeout_s: float = TRACKER_WAIT_S) -> str | None:
        """Wait for the id of the run; None if the server does not answer within ``timeout_s``."""
        self._calls.put(({"call": "start"}, lambda client, run_id: None))
        self._is_known.wait(timeout_s)
        return self._run_id

    def log_params(self, values: Mapping[str, object]) -> None:
        recorded = dict(values)

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Param, RunTag

            entries = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in recorded.items()]
            known = client.get_run(run_id).data.params
            new = [entry for entry in entries if entry.key not in known]
            for start in range(0, len(new), MAX_BATCH):
                client.log_batch(run_id, params=new[start : start + MAX_BATCH])
            # MLflow never changes a param, so changed settings of a resumed run become tags
            changed = [
                entry for entry in entries if entry.key in known and known[entry.key] != entry.value
            ]
            tags = [RunTag(f"mmtpp.resumed_with.{entry.key}", entry.value) for entry in changed]
            if tags:
                client.log_batch(run_id, tags=tags)

        self._put("params", recorded, call)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        now, recorded = int(time.time() * 1000), dict(values)

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Metric

            entries = [Metric(key, float(value), now, step) for key, value in recorded.items()]
            client.log_batch(run_id, metrics=entries)

        self._put("metrics", {"step": step, **recorded}, call)

    def set_tags(self, values: Mapping[str, str]) -> None:
        recorded = dict(values)

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import RunTag

            tags = [RunTag(key, value) for key, value in recorded.items()]
            client.log_batch(run_id, tags=tags)

        self._put("tags", recorded, call)

    def log_text(self, name: str, content: str) -> None:
        self._put(
            "text", {"name": name}, lambda client, run_id: client.log_text(run_id, content, name)
        )

    def log_folder(self, uri: str, name: str) -> None:
        def call(client: "MlflowClient", run_id: str) -> None:
            with tempfile.TemporaryDirectory() as local:
                copy_folder(uri, local)
                client.log_artifacts(run_id, local, name or None)

        self._put("folder", {"uri": uri, "name": name}, call)

    def set_description(self, text: str) -> None:
        """Set the description of the run in Markdown, with a link to its parent run."""

        def call(client: "MlflowClient", run_id: str) -> None:
            run = client.get_run(run_id)
            parent = run.data.tags.get(PARENT_TAG)
            page = f"#/experiments/{run.info.experiment_id}/runs/{parent}"
            link = f"\n\nPart of [{parent}]({page})." if parent else ""
            client.set_tag(run_id, NOTE_TAG, text + link)

        self._put("describe", {"text": text}, call)

    def log_dataset(self, data: TrackedData) -> None:
        """Record the data that the run read."""

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(
                name=data.name,
                digest=data.digest[:DIGEST_LENGTH],
                source_type="mmtpp event store",
                source=json.dumps({"uri": data.uri}),
                profile=json.dumps(dict(data.counts)),
            )
            context = InputTag("mlflow.data.context", data.context)
            client.log_inputs(run_id, [DatasetInput(dataset, [context])])

        self._put("dataset", asdict(data), call)

    def log_forecaster(
        self, *, path: str, base: str, known_type: str | int, register_as: str
    ) -> None:
        """Record a fine-tuned model as an MLflow model, and register it if it has a name.

        Args:
            path: URI of the model or adapter.
            base: URI of the model that an adapter adapts; empty for none.
            known_type: Type that the model knows.
            register_as: Name in MLflow's model registry; empty to not register the model.
        """

        def call(client: "MlflowClient", run_id: str) -> None:
            # imported here: it takes a second, and runs without a fine-tuned model do not need it
            from mmtpp.track.logged_model import save_forecaster

            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / FORECASTER
                save_forecaster(folder, path=path, base=base, known_type=known_type)
                client.log_artifacts(run_id, str(folder), FORECASTER)
            if register_as:
                if not client.search_registered_models(f"name = '{register_as}'"):
                    client.create_registered_model(register_as)
                source = f"{client.get_run(run_id).info.artifact_uri}/{FORECASTER}"
                client.create_model_version(register_as, source, run_id)

        self._put("forecaster", {"path": path, "base": base}, call)

    def close_children(self, reason: str, *, run_name: str = "") -> None:
        """Close child runs that are still open, whose processes have ended, as ``KILLED``.

        Args:
            reason: Value of the tag ``mmtpp.stopped``, which is removed when the run resumes.
            run_name: Name of the child runs to close; empty for all child runs.
        """

        def call(client: "MlflowClient", run_id: str) -> None:
            experiment_id = client.get_run(run_id).info.experiment_id
            query = f"tags.`{PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'"
            if run_name:
                query += f" and attributes.run_name = '{run_name}'"
            for child in client.search_runs([experiment_id], query, max_results=MAX_RUNS):
                client.set_tag(child.info.run_id, STOPPED_TAG, reason)
                client.set_terminated(child.info.run_id, "KILLED")

        self._put("children", {"why": reason, "run_name": run_name}, call)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Close the run: FINISHED, or FAILED after an error, or KILLED after a stop."""
        if error is None:
            self.close("FINISHED")
        elif isinstance(error, Exception) and not isinstance(error, StoppedError):
            self.close("FAILED")
        else:
            self.close("KILLED")

    def close(self, status: str) -> None:
        self._put(
            "status",
            {"status": status},
            lambda client, run_id: client.set_terminated(run_id, status),
        )
        self.detach()

    def detach(self) -> None:
        self._calls.put(None)
        self._thread.join(CLOSE_TIMEOUT_S if self._is_known.is_set() else LONGEST_WAIT_S / 3)
        if self._thread.is_alive():
            self._has_given_up.set()
            self._thread.join()
        if self._unsent:
            uri = join(self._run_uri, f"tracking_backlog-{int(time.time())}.jsonl")
            lines = "".join(json.dumps(record, default=str) + "\n" for record in self._unsent)
            try:
                write_bytes(uri, lines.encode())
            except StorageError as error:
                logger.error(
                    "%d records did not reach MLflow and are lost: %s", len(self._unsent), error
                )
                return
            logger.warning(
                "%d records did not reach MLflow; they are stored in %s", len(self._unsent), uri
            )

    def _put(self, name: str, record: dict[str, Any], call: _Call) -> None:
        self._calls.put(({"call": name, "time": time.time(), **record}, call))

    def _send_all(self) -> None:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except Exception:  # a damaged installation raises anything; the records must be kept
            logger.exception("MLflow cannot be imported; the records are kept")
            while (item := self._calls.get()) is not None:
                self._unsent.append(item[0])
            return
        client: MlflowClient | None = None
        while (item := self._calls.get()) is not None:
            record, call = item
            wait = FIRST_WAIT_S
            while not self._has_given_up.is_set():
                try:
                    client = client or MlflowClient(self._uri)
                    if self._run_id is None:
                        self._run_id = self._find_or_create(client)
                        self._is_known.set()
                    call(client, self._run_id)
                # errors of requests and urllib3 are OSErrors
                except (MlflowException, OSError, StorageError) as error:
                    if getattr(error, "error_code", "") in REFUSALS:
                        logger.warning("MLflow refuses %s: %s", record["call"], first_line(error))
                        self._unsent.append(record)
                        break
                    if wait == FIRST_WAIT_S:
                        logger.warning(
                            "MLflow does not accept %s; the job continues and tries again: %s",
                            record["call"],
                            first_line(error),
                        )
                    self._has_given_up.wait(wait)
                    wait = min(2 * wait, LONGEST_WAIT_S)
                except Exception:  # at the end of the thread: the other records must be sent
                    logger.exception("%s cannot be sent to MLflow", record["call"])
                    self._unsent.append(record)
                    break
                else:
                    break
            else:
                self._unsent.append(record)

    def _find_or_create(self, client: "MlflowClient") -> str:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment:
            experiment_id = experiment.experiment_id
        else:
            experiment_id = client.create_experiment(
                self._experiment, artifact_location=_artifact_location(self._uri)
            )
        runs = client.search_runs(
            [experiment_id], filter_string=f"tags.`{RUN_KEY_TAG}` = '{self._run_key}'"
        )
        if runs:
            client.update_run(runs[0].info.run_id, status="RUNNING")
            if STOPPED_TAG in runs[0].data.tags:
                client.delete_tag(runs[0].info.run_id, STOPPED_TAG)
            return runs[0].info.run_id
        tags = {RUN_KEY_TAG: self._run_key}
        if self._parent_run_id:
            tags[PARENT_TAG] = self._parent_run_id
        run = client.create_run(experiment_id, tags=tags, run_name=self._run_name)
        return run.info.run_id
