"""The update job: continue a forecaster on new events, compare both, and promote the better one.

``updated_model`` has what the job asks of a model; a kind of model is one subclass.
"""

import logging
from typing import cast

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.paths import check_bucket
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.train.launch.planned_training import TrainingJob
from mmtpp.train.launch.run_folder import identify_run
from mmtpp.train.launch.training_jobs import run_training_job
from mmtpp.update.champion_challenge import Challenge, find_challenge, promote
from mmtpp.update.comparison import compare_losses
from mmtpp.update.update_result import find_result, write_result
from mmtpp.update.updated_kinds import build_updated_model
from mmtpp.update.updated_model import PresentModel, UpdatedModel

logger = logging.getLogger(__name__)


def update(config: RunConfig) -> dict[str, object]:
    """Continue a forecaster on the new events of a store.

    The updated forecaster is compared with the one before on the new events of the test split. If
    it is better, the alias of ``update.model`` moves to it, unless it moved meanwhile. A repeated
    job returns its result again and promotes nothing twice.

    Args:
        config: The whole configuration.

    Returns:
        The result that ``pretrain`` describes, and ``is_better``, ``promoted`` (address of the
        promoted version; empty if none was), ``model_settings`` (``model.path`` and
        ``model.adapter`` of the compared model) and the metrics of the comparison.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        ConfigError: The model cannot be updated, or the settings do not fit it.
        DataError: No new event can be learned, or none is in the test split.
        MmtppError: The store, the model or the settings do not fit, or a worker raised this error.
    """
    check_bucket(config.run.storage_uri)
    store, challenge = load_store(config.store.uri), find_challenge(config)
    _check_new_from(config.update.new_from, store)
    if challenge is not None:
        made_by = challenge.folder.rpartition("/")[0]
        # the alias names it, so it was promoted, also if the job ended before it wrote that down
        result = find_result(made_by, config, store, undecided=challenge.address)
        if result is not None:
            logger.info("the champion has learned these events already: %s", made_by)
            return result
        config = challenge.with_folder(config)
    base = "" if challenge is None else challenge.base
    model = build_updated_model(PresentModel(config, store, base))
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    model.read_new_events()
    result = run_training_job(TrainingJob("update", model.config))
    return _compare_and_decide(model, store, challenge, result)


def _compare_and_decide(
    model: UpdatedModel,
    store: PreparedStore,
    challenge: Challenge | None,
    trained: dict[str, object],
) -> dict[str, object]:
    """The result of the job, from that of its training."""
    config = model.config
    run = identify_run(config, "update", store_fingerprint=store.manifest.fingerprint)
    if (finished := find_result(run.run_uri, config, store)) is not None:
        return finished
    updated = model.updated_settings(trained)
    comparison = compare_losses(*model.losses(updated), seed=config.training.seed)
    result = {
        **trained,
        "metrics": {**cast(dict[str, float], trained["metrics"]), **comparison.as_metrics()},
        "model_settings": updated,
        "is_better": comparison.is_better,
        "promoted": None,  # not decided
    }
    write_result(run.run_uri, config, store, result)
    promoted = ""
    if challenge is not None and comparison.is_better:
        promoted = promote(
            challenge,
            config,
            run,
            str(trained["run_id"]),
            updated=updated,
            known_type=model.known_type,
        )
    result["promoted"] = promoted
    write_result(run.run_uri, config, store, result)
    with MlflowTracker.from_run(config.tracking, run) as tracker:
        tracker.log_metrics(0, comparison.as_metrics())
        tracker.set_tags({"mmtpp.promoted": promoted})
    return result


def _check_new_from(new_from: str, store: PreparedStore) -> None:
    try:
        float(new_from)
    except ValueError:
        if not store.manifest.times_are_dates:
            raise ConfigError(
                "a date cannot be found in times that are no dates",
                where=store.uri,
                cause="the times of the source count from an origin of their own",
                setting=f"update.new_from = {new_from}; give a number in the source's unit",
            ) from None
