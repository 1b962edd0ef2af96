"""MLflow, the only file that imports it. Calls are queued and sent by a thread of their own."""

import json
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# An unreachable server must not hold up anyone for MLflow's default of several minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# nothing is sent to anyone who was not asked for: MLflow's usage statistics are off by default here
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mmtpp.config.schema import Tracking
from mmtpp.core.errors import StorageError
from mmtpp.storage.paths import copy_folder, join, write_bytes
from mmtpp.track.tracker import TrackedData

logger = logging.getLogger(__name__)

RUN_KEY_TAG = "mmtpp.run"  # one MLflow run for each value, however often it is restarted
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
STOPPED_TAG = "mmtpp.stopped"  # why a run was closed by another; gone when it goes on
FORECASTER = "forecaster"  # folder of the logged model
DIGEST_LENGTH = 36  # MLflow's limit
MAX_PARAM_LENGTH = 6000  # MLflow's limit
MAX_RUNS = 50_000  # MLflow's limit of runs found at once
MAX_BATCH = 100  # MLflow's limit of params in one request; its limit of metrics is higher
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
CLOSE_TIMEOUT_S = 60.0

# Answers that trying again cannot change.
REFUSALS = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
)

_Call = Callable[[MlflowClient, str], object]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What names a run.

    Attributes:
        run_name: shown in the UI.
        run_uri: folder of the run.
        run_key: the same key always finds the same MLflow run.
        mlflow_run_id: when known already.
    """

    run_name: str
    run_uri: str
    run_key: str
    mlflow_run_id: str | None = None


def ping(uri: str) -> None:
    """Ask a tracking server for its experiments.

    Raises:
        StorageError: it does not answer, or refuses.
    """
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise StorageError(
            f"the MLflow server {uri} does not answer: {str(error).splitlines()[0][:200]}",
            cause="it is not running or not reachable from here, or it wants "
            "MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and _PASSWORD",
            setting="tracking.uri, or MLFLOW_TRACKING_URI in the environment",
        ) from error


class MlflowTracker:
    """One MLflow run, found by its key or created; see ``Tracker``.

    While the server is away calls wait in memory and one warning is logged; when it is back they
    are sent in order. What is left when the run closes is written to ``tracking_backlog.jsonl``
    in the run's folder.

    Args:
        uri: tracking server or sqlite:// file.
        experiment: created when missing.
        run_key: identity of the run: the same key always finds the same run.
        run_name: shown in the UI.
        run_uri: the run's folder.
        run_id: when known already.
        parent_run_id: of the run this is a child of, or empty.
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
        self._uri, self._experiment = uri, experiment
        self._run_key, self._run_name, self._run_uri = run_key, run_name, run_uri
        self._run_id, self._parent_run_id = run_id, parent_run_id
        self._calls: queue.Queue[tuple[dict[str, Any], _Call] | None] = queue.Queue()
        self._unsent: list[dict[str, Any]] = []
        self._give_up = threading.Event()
        self._found = threading.Event()
        if run_id:
            self._found.set()
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._thread.start()

    @classmethod
    def from_run(cls, settings: Tracking, run: RunIdentity) -> "MlflowTracker":
        """The tracker of a run as the configuration and the run describe it."""
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

    def wait_for_run(self, timeout_s: float) -> str | None:
        """Id of the run, waiting so long for the server; None when it does not answer."""
        self._calls.put(({"call": "start"}, lambda client, run_id: None))
        self._found.wait(timeout_s)
        return self._run_id

    def params(self, values: Mapping[str, object]) -> None:
        entries = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in values.items()]

        def call(client: MlflowClient, run_id: str) -> None:
            known = client.get_run(run_id).data.params
            new = [entry for entry in entries if entry.key not in known]
            for start in range(0, len(new), MAX_BATCH):
                client.log_batch(run_id, params=new[start : start + MAX_BATCH])
            # MLflow never changes a param: what a resumed run changes is kept as a tag
            changed = [e for e in entries if e.key in known and known[e.key] != e.value]
            tags = [RunTag(f"mmtpp.resumed_with.{entry.key}", entry.value) for entry in changed]
            if tags:
                client.log_batch(run_id, tags=tags)

        self._put("params", dict(values), call)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._put(
            "metrics",
            {"step": step, **values},
            lambda client, run_id: client.log_batch(run_id, metrics=entries),
        )

    def tags(self, values: Mapping[str, str]) -> None:
        entries = [RunTag(key, value) for key, value in values.items()]
        self._put(
            "tags", dict(values), lambda client, run_id: client.log_batch(run_id, tags=entries)
        )

    def text(self, name: str, content: str) -> None:
        self._put(
            "text", {"name": name}, lambda client, run_id: client.log_text(run_id, content, name)
        )

    def folder(self, uri: str, name: str) -> None:
        def call(client: MlflowClient, run_id: str) -> None:
            with tempfile.TemporaryDirectory() as local:
                copy_folder(uri, local)
                client.log_artifacts(run_id, local, name or None)

        self._put("folder", {"uri": uri, "name": name}, call)

    def describe(self, text: str) -> None:
        """Show Markdown above the run's metrics, with a link to its parent."""

        def call(client: MlflowClient, run_id: str) -> None:
            run = client.get_run(run_id)
            parent = run.data.tags.get(PARENT_TAG)
            place = f"#/experiments/{run.info.experiment_id}/runs/{parent}"
            link = f"\n\nPart of [{parent}]({place})." if parent else ""
            client.set_tag(run_id, NOTE_TAG, text + link)

        self._put("describe", {"text": text}, call)

    def dataset(self, data: TrackedData) -> None:
        """Record which data the run read."""

        def call(client: MlflowClient, run_id: str) -> None:
            found = Dataset(
                name=data.name,
                digest=data.digest[:DIGEST_LENGTH],
                source_type="mmtpp event store",
                source=json.dumps({"uri": data.uri}),
                profile=json.dumps(dict(data.counts)),
            )
            context = InputTag("mlflow.data.context", data.context)
            client.log_inputs(run_id, [DatasetInput(found, [context])])

        self._put("dataset", asdict(data), call)

    def forecaster(self, *, path: str, base: str, known_type: str | int, register_as: str) -> None:
        """Record a fine-tuned model in MLflow's own form, and register it where a name is given.

        Args:
            path: URI of the model or adapter.
            base: URI of the model that an adapter adapts, or empty.
            known_type: one that the model knows.
            register_as: name in MLflow's registry, or empty.
        """

        def call(client: MlflowClient, run_id: str) -> None:
            # here: it takes a second, and a run without such a model does without
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

    def close_children(self, why: str, *, run_name: str = "") -> None:
        """Mark the child runs that are still open as ``KILLED``: what ran them is gone.

        Args:
            why: their tag ``mmtpp.stopped``, until they go on.
            run_name: of the only ones that are meant; empty for all.
        """

        def call(client: MlflowClient, run_id: str) -> None:
            experiment_id = client.get_run(run_id).info.experiment_id
            query = f"tags.`{PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'"
            if run_name:
                query += f" and attributes.run_name = '{run_name}'"
            for child in client.search_runs([experiment_id], query, max_results=MAX_RUNS):
                client.set_tag(child.info.run_id, STOPPED_TAG, why)
                client.set_terminated(child.info.run_id, "KILLED")

        self._put("children", {"why": why, "run_name": run_name}, call)

    def close(self, status: str) -> None:
        if status:
            self._put(
                "status",
                {"status": status},
                lambda client, run_id: client.set_terminated(run_id, status),
            )
        self._calls.put(None)
        self._thread.join(CLOSE_TIMEOUT_S if self._found.is_set() else LONGEST_WAIT_S / 3)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join()
        if self._unsent:
            uri = join(self._run_uri, f"tracking_backlog-{int(time.time())}.jsonl")
            lines = "".join(json.dumps(each, default=str) + "\n" for each in self._unsent)
            logger.warning(
                "%d records did not reach MLflow; they are kept in %s", len(self._unsent), uri
            )
            write_bytes(uri, lines.encode())

    def _put(self, name: str, record: dict[str, Any], call: _Call) -> None:
        self._calls.put(({"call": name, "time": time.time(), **record}, call))

    def _send_all(self) -> None:
        client: MlflowClient | None = None
        while (item := self._calls.get()) is not None:
            record, call = item
            wait = FIRST_WAIT_S
            while not self._give_up.is_set():
                try:
                    client = client or MlflowClient(self._uri)
                    if self._run_id is None:
                        self._run_id = self._find_or_create(client)
                        self._found.set()
                    call(client, self._run_id)
                # requests' and urllib3's errors are OSErrors
                except (MlflowException, OSError, StorageError) as error:
                    if getattr(error, "error_code", "") in REFUSALS:
                        logger.warning("MLflow refuses %s: %s", record["call"], _first_line(error))
                        self._unsent.append(record)
                        break
                    if wait == FIRST_WAIT_S:
                        logger.warning(
                            "MLflow does not take %s, will try again; the job goes on: %s",
                            record["call"],
                            _first_line(error),
                        )
                    self._give_up.wait(wait)
                    wait = min(2 * wait, LONGEST_WAIT_S)
                else:
                    break
            else:
                self._unsent.append(record)

    def _find_or_create(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        experiment_id = found.experiment_id if found else client.create_experiment(self._experiment)
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
