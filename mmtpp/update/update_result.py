"""The result of an update in the folder of its run: a repeated job decides nothing twice."""

import json

from mmtpp.config.schema import RunConfig
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.storage.paths import exists, join, read_bytes, write_bytes

COMPARISON_FILE = "comparison.json"  # in the run's folder


def find_result(
    run_uri: str, config: RunConfig, store: PreparedStore, *, undecided: str | None = None
) -> dict[str, object] | None:
    """The result of an earlier update on the same new events; None if there is none.

    Args:
        run_uri: Folder of the run.
        config: The whole configuration.
        store: The store.
        undecided: Value of ``promoted`` where the run ended before it was written; None takes such
            a run for unfinished.
    """
    uri = join(run_uri, COMPARISON_FILE)
    if not exists(uri):
        return None
    record = json.loads(read_bytes(uri))
    result: dict[str, object] = record["result"]
    # updates of earlier versions were of experts, and do not say how the model is loaded
    if "model_settings" not in result:
        result["model_settings"] = {"model.path": result["model_uri"]}
    if result["promoted"] is None:
        result["promoted"] = undecided
    is_same = record["learned"] == _learned(config, store)
    return result if is_same and result["promoted"] is not None else None


def write_result(
    run_uri: str, config: RunConfig, store: PreparedStore, result: dict[str, object]
) -> None:
    """Write the result of an update; ``promoted`` is None until it is decided.

    Args:
        run_uri: Folder of the run.
        config: The whole configuration.
        store: The store.
        result: The result of the job.
    """
    record = {"learned": _learned(config, store), "result": result}
    content = json.dumps(record, indent=2, allow_nan=False).encode()
    write_bytes(join(run_uri, COMPARISON_FILE), content)


def _learned(config: RunConfig, store: PreparedStore) -> dict[str, str]:
    """Which events an update learned."""
    return {"store": store.manifest.fingerprint, "new_from": config.update.new_from}
