"""The update job: continue an expert on new events, compare both, and promote the better one."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.split import parse_instant
from mmtpp.data.from_config import sample_settings
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.evaluate.check_model import check_model
from mmtpp.evaluate.scores.metrics import few_sequences_warning
from mmtpp.evaluate.scores.paired_difference import Difference, paired_difference
from mmtpp.expert.expert_folder import load_expert
from mmtpp.expert.new_events import targets_between
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.runtime.block_tasks import map_blocks
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, exists, join, read_bytes, write_bytes
from mmtpp.track.champion import Champion
from mmtpp.track.mlflow_tracker import MlflowTracker
from mmtpp.track.registered_model import PREFIX, find_registered_model
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.launch.planned_training import TrainingJob
from mmtpp.train.launch.run_folder import identify_run
from mmtpp.train.launch.training_jobs import run_training_job
from mmtpp.update.sequence_losses import sequence_losses

logger = logging.getLogger(__name__)

COMPARISON_FILE = "comparison.json"  # in the run's folder
LEAST_SEQUENCES = 5
"""An interval over fewer test sequences says nothing, so nothing is promoted."""


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
        return self.difference.num_sequences >= LEAST_SEQUENCES and self.difference.high < 0

    def as_metrics(self) -> dict[str, float]:
        """The comparison as metrics of MLflow, by name; values that are not finite are left out."""
        values = {
            "update/minus_before_nats_per_event": self.difference.value,
            "update/minus_before_low": self.difference.low,
            "update/minus_before_high": self.difference.high,
            "update/compared_events": float(self.num_events),
            "update/compared_sequences": float(self.difference.num_sequences),
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class Challenge:
    """A champion and the version of it that is compared with the updated expert.

    Attributes:
        champion: The alias.
        version: The version that it named when the job began.
        folder: Folder of this version.
    """

    champion: Champion
    version: str
    folder: str

    @property
    def address(self) -> str:
        """Address of the version, ``models:/NAME/VERSION``."""
        return f"{PREFIX}{self.champion.name}/{self.version}"


def update(config: RunConfig) -> dict[str, object]:
    """Continue an expert on the new events of a store.

    The updated expert is compared with the one before on the new events of the test split. If it is
    better, the alias of ``update.model`` moves to it, unless it moved meanwhile. A repeated job
    returns its result again and promotes nothing twice.

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
    store, challenge = load_store(config.store.uri), _find_challenge(config)
    _check_new_from(config.update.new_from, store.manifest, where=store.uri)
    if challenge is not None:
        made_by = challenge.folder.rpartition("/")[0]
        # the alias names it, so it was promoted, also if the job ended before it wrote that down
        result = _find_result(made_by, config, store, undecided=challenge.address)
        if result is not None:
            logger.info("the champion has learned these events already: %s", made_by)
            return result
    config = _with_model(config, challenge)
    tasks = _check_expert(config, store)
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    held_out = _read_held_out(config, store, tasks)
    result = run_training_job(TrainingJob("update", config))
    run = identify_run(config, "update", store_fingerprint=store.manifest.fingerprint)
    if (finished := _find_result(run.run_uri, config, store)) is not None:
        return finished
    comparison = _compare(config, held_out, str(result["model_uri"]))
    record = {
        **result,
        "metrics": {**cast(dict[str, float], result["metrics"]), **comparison.as_metrics()},
        "is_better": comparison.is_better,
        "promoted": None,  # not decided
    }
    _write_result(run.run_uri, config, store, record)
    promoted = ""
    if challenge is not None and comparison.is_better:
        promoted = _promote(config, challenge, run, result, known_type=_known_type(tasks))
    record["promoted"] = promoted
    _write_result(run.run_uri, config, store, record)
    with MlflowTracker.from_run(config.tracking, run) as tracker:
        tracker.log_metrics(0, comparison.as_metrics())
        tracker.set_tags({"mmtpp.promoted": promoted})
    return record


def _find_result(
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
    if result["promoted"] is None:
        result["promoted"] = undecided
    is_same = record["learned"] == _learned(config, store)
    return result if is_same and result["promoted"] is not None else None


def _write_result(
    run_uri: str, config: RunConfig, store: PreparedStore, result: dict[str, object]
) -> None:
    record = {"learned": _learned(config, store), "result": result}
    content = json.dumps(record, indent=2, allow_nan=False).encode()
    write_bytes(join(run_uri, COMPARISON_FILE), content)


def _learned(config: RunConfig, store: PreparedStore) -> dict[str, str]:
    """Which events an update learned."""
    return {"store": store.manifest.fingerprint, "new_from": config.update.new_from}


def _known_type(tasks: TrainedTasks) -> str:
    return tasks.name_of(tasks.type_codes[0])


def _promote(
    config: RunConfig,
    challenge: Challenge,
    run: RunIdentity,
    result: Mapping[str, object],
    *,
    known_type: str,
) -> str:
    """Let the alias name the updated expert; returns its address, or nothing if the alias moved."""
    champion = challenge.champion
    if (present := champion.version()) != challenge.version:
        logger.warning(
            "%s@%s names version %s now, not version %s, with which the updated expert was "
            "compared; it stays",
            champion.name,
            champion.alias,
            present,
            challenge.version,
        )
        return ""
    run_id = str(result["run_id"])
    version = champion.version_of_run(run_id)
    if not version:  # MLflow was away when the training ended
        with MlflowTracker.from_run(config.tracking, run) as tracker:
            tracker.log_forecaster(
                path=str(result["model_uri"]),
                base="",
                known_type=known_type,
                register_as=champion.name,
            )
        version = champion.version_of_run(run_id)
    if not version:
        raise ModelError(
            "the updated expert cannot be registered",
            where=f"{PREFIX}{champion.name}, run {run_id}",
            cause="the tracking server does not answer; the log has its error. Start the job again",
            setting=f"tracking.uri = {config.tracking.uri}",
        )
    champion.promote(version, replaced=challenge.version)
    return f"{PREFIX}{champion.name}/{version}"


def _find_challenge(config: RunConfig) -> Challenge | None:
    """The alias that ``update.model`` names, and its version; None for a folder."""
    address = config.update.model
    if not address.startswith(PREFIX):
        return None
    champion = Champion.from_address(address, tracking_uri=config.tracking.uri)
    found = find_registered_model(address, tracking_uri=config.tracking.uri)
    return Challenge(champion, found.uri.rpartition("/")[2], found.path)


def _with_model(config: RunConfig, challenge: Challenge | None) -> RunConfig:
    """The settings with the folder of the expert, and with the name to register under."""
    values: dict[str, object] = {"model.preset": "expert", "model.path": ""}
    if challenge is not None:
        name = challenge.champion.name
        values |= {"update.model": challenge.folder, "tracking.register_as": name}
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
    if note := few_sequences_warning(len(num_events)):
        logger.warning("%s", note)
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
