"""The update job: continue an expert on new events, compare both, and promote the better one."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.split import parse_instant
from mmtpp.data.from_config import sample_settings
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.evaluate.check_model import check_model
from mmtpp.evaluate.scores.paired_difference import Difference, paired_difference
from mmtpp.expert.expert_folder import load_expert
from mmtpp.expert.new_events import targets_between
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.runtime.block_tasks import map_blocks
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, join, write_bytes
from mmtpp.track.champion import Champion
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.registered_model import PREFIX, find_registered_model
from mmtpp.train.launch.planned_training import TrainingJob
from mmtpp.train.launch.run_folder import identify_run
from mmtpp.train.launch.training_jobs import run_training_job
from mmtpp.update.sequence_losses import sequence_losses

logger = logging.getLogger(__name__)

COMPARISON_FILE = "comparison.json"  # in the run's folder


@dataclass(frozen=True, slots=True)
class Comparison:
    """The updated expert and the one before, on new events of the test split.

    Attributes:
        difference: Nats per event of the updated expert minus those of the one before.
        num_events: Number of events.
    """

    difference: Difference
    num_events: int

    @property
    def is_better(self) -> bool:
        """Whether the whole 95 % interval of the difference is below zero."""
        return self.difference.high < 0

    def as_metrics(self) -> dict[str, float]:
        """The comparison as metrics of MLflow, by name."""
        return {
            "update/minus_before_nats_per_event": self.difference.value,
            "update/minus_before_low": self.difference.low,
            "update/minus_before_high": self.difference.high,
            "update/compared_events": float(self.num_events),
        }


def update(config: RunConfig) -> dict[str, object]:
    """Continue an expert on the new events of a store.

    The updated expert is compared with the one before on the new events of the test split. If it is
    better, the alias of ``update.model`` moves to it.

    Args:
        config: The whole configuration.

    Returns:
        The result that ``pretrain`` describes, and ``is_better``, ``promoted`` (address of the
        promoted version; empty if none was) and the metrics of the comparison.

    Raises:
        StoppedError: The job received SIGTERM; it saved a checkpoint first.
        ConfigError: The model is no expert.
        DataError: No new event can be learned, or none is in the test split.
        MmtppError: The store, the model or the settings do not fit, or a worker raised this error.
    """
    check_bucket(config.run.storage_uri)
    store, champion = load_store(config.store.uri), _find_champion(config)
    config = _with_model(config, champion)
    _check_new_from(config.update.new_from, store.manifest, where=store.uri)
    tasks = _check_expert(config, store)
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    held_out = _read_held_out(config, store, tasks)
    result = run_training_job(TrainingJob("update", config))
    comparison = _compare(config, held_out, str(result["model_uri"]))
    promoted = ""
    if champion is not None and comparison.is_better:
        version = champion.version_of_run(str(result["run_id"]))
        champion.promote(version)
        promoted = f"{PREFIX}{champion.name}/{version}"
    _record(config, store, comparison, promoted)
    return {
        **result,
        "metrics": {**cast(dict[str, float], result["metrics"]), **comparison.as_metrics()},
        "is_better": comparison.is_better,
        "promoted": promoted,
    }


def _find_champion(config: RunConfig) -> Champion | None:
    """The alias that ``update.model`` names; None for a folder."""
    address = config.update.model
    if not address.startswith(PREFIX):
        return None
    return Champion.from_address(address, tracking_uri=config.tracking.uri)


def _with_model(config: RunConfig, champion: Champion | None) -> RunConfig:
    """The settings with the folder of the expert, and with the name to register under."""
    values: dict[str, object] = {"model.preset": "expert", "model.path": ""}
    if champion is not None:
        found = find_registered_model(config.update.model, tracking_uri=config.tracking.uri)
        values |= {"update.model": found.path, "tracking.register_as": champion.name}
    return with_values(config, values)


def _check_expert(config: RunConfig, store: PreparedStore) -> TrainedTasks:
    """Check that the model is an expert that fits the store; return its record."""
    description = check_model(with_values(config, {"model.path": config.update.model}), store)
    if description.kind != ModelKind.EXPERT or description.trained_tasks is None:
        raise ConfigError(
            "only a temporal expert can be updated",
            where=config.update.model,
            cause="a language model continues with finetune, model.adapter and window.time_from",
            setting=f"update.model = {config.update.model}",
        )
    return description.trained_tasks


def _check_new_from(new_from: str, manifest: Manifest, *, where: str) -> None:
    try:
        float(new_from)
    except ValueError:
        if not manifest.times_are_dates:
            raise ConfigError(
                "a date cannot be found in times that are no dates",
                where=where,
                cause="the times of the source count from an origin of their own",
                setting=f"update.new_from = {new_from}; give a number in the source's unit",
            ) from None


def _read_held_out(
    config: RunConfig, store: PreparedStore, tasks: TrainedTasks
) -> list[ScoredSequence]:
    """The test sequences with their new events."""
    expert = load_expert(config.update.model)
    samples = sample_settings(
        config.sample_sections, store.manifest, split="test", reads_template=False
    )
    settings = SequenceSettings(samples, tasks.type_codes, expert.texts, expert.reads_images)
    new_from = parse_instant(config.update.new_from, seconds_per_unit=tasks.seconds_per_unit)
    held_out = targets_between(read_sequences(settings), new_from, None)
    if not held_out:
        raise DataError(
            "no test event is new, so the updated expert could not be compared",
            where=store.uri,
            cause="the store ends before the time from which events are new, or it has no test "
            "split",
            setting=f"update.new_from = {config.update.new_from}",
        )
    return held_out


def _compare(config: RunConfig, held_out: list[ScoredSequence], model_uri: str) -> Comparison:
    before, after = map_blocks(
        _score,
        held_out,
        [config.update.model, model_uri],
        machine_labels=config.store.machine_labels,
        title="compare",
    )
    num_events = before["events"].to_numpy()
    after_nll, before_nll = (
        table["time_nll"].to_numpy() + table["type_nll"].to_numpy() for table in (after, before)
    )
    difference = paired_difference(after_nll, before_nll, num_events, seed=config.training.seed)
    logger.info(
        "updated minus before on %d new test events: %+.4f nats per event, 95 %% interval "
        "[%+.4f, %+.4f]",
        int(num_events.sum()),
        difference.value,
        difference.low,
        difference.high,
    )
    return Comparison(difference, int(num_events.sum()))


def _score(held_out: Sequence[ScoredSequence], model_uri: str) -> pa.Table:
    return sequence_losses(load_expert(model_uri), held_out)


def _record(config: RunConfig, store: PreparedStore, comparison: Comparison, promoted: str) -> None:
    """Record the comparison in MLflow and in the run's folder."""
    run = identify_run(config, "update", store_fingerprint=store.manifest.fingerprint)
    record = {**comparison.as_metrics(), "promoted": promoted}
    write_bytes(join(run.run_uri, COMPARISON_FILE), json.dumps(record, indent=2).encode())
    with MlflowTracker.from_run(config.tracking, run) as tracker:
        tracker.log_metrics(0, comparison.as_metrics())
        tracker.set_tags({"mmtpp.promoted": promoted})
